use super::*;

fn change(app: &str, keys: &[(&'static str, &str, &str)]) -> AppChange {
    let keys = keys.iter().map(|(key, from, to)| KeyChange {
        key,
        from: (*from).to_owned(),
        to: (*to).to_owned(),
    });
    AppChange { app: app.to_owned(), pooled: false, keys: keys.collect() }
}

#[test]
fn a_fragment_is_a_config() {
    let changes = [
        change("local/a", &[("keep_alive", "10", "300"), ("min_concurrency", "0", "1")]),
        change("team/b--x", &[("scaling_delay", "0", "\"250ms\"")]),
    ];
    let text = fragment(&changes);
    let expected = "[apps.\"local/a\"]\nkeep_alive = 300\nmin_concurrency = 1\n\n\
                    [apps.\"team/b--x\"]\nscaling_delay = \"250ms\"\n";
    assert_eq!(text, expected);
    assert!(is_right(&text, &changes));
}

#[test]
fn without_a_file_the_diff_is_against_todays_values() {
    let changes = [change("local/a", &[("keep_alive", "10", "300")])];
    let expected = "--- glowplug.toml\n+++ glowplug.toml\n@@ -1,2 +1,2 @@\n [apps.\"local/a\"]\n\
                    -keep_alive = 10\n+keep_alive = 300\n";
    assert_eq!(unified(None, &changes), expected);
    assert_eq!(unified(None, &[]), "");
}

#[test]
fn a_file_is_changed_in_place() {
    let config = "\
[node]
listen = \"127.0.0.1:7777\"

[apps.a]  # the first
app = \"a.py\"
keep_alive = \"1m\"

[apps.a.env]
keep_alive = \"not this\"

[apps.\"team/b\"]
command = \"./b\"
";
    let changes = [
        change("local/a", &[("keep_alive", "60", "300"), ("concurrency_buffer", "0", "1")]),
        change("local/new", &[("keep_alive", "10", "20")]),
        change("team/b", &[("min_concurrency", "0", "1")]),
    ];
    let expected = "\
--- glowplug.toml
+++ glowplug.toml
@@ -2,11 +2,16 @@
 listen = \"127.0.0.1:7777\"
 
 [apps.a]  # the first
+concurrency_buffer = 1
 app = \"a.py\"
-keep_alive = \"1m\"
+keep_alive = 300
 
 [apps.a.env]
 keep_alive = \"not this\"
 
 [apps.\"team/b\"]
+min_concurrency = 1
 command = \"./b\"
+
+[apps.\"local/new\"]
+keep_alive = 20
";
    assert_eq!(unified(Some(config), &changes), expected);
}

#[test]
fn changes_far_apart_are_hunks_of_their_own() {
    let rest = "# text\n".repeat(20);
    let config = format!("[apps.a]\nkeep_alive = 1\n{rest}[apps.b]\nkeep_alive = 1\n");
    let changes = [
        change("local/a", &[("keep_alive", "1", "2")]),
        change("local/b", &[("keep_alive", "1", "3")]),
    ];
    let diff = unified(Some(&config), &changes);
    let hunks: Vec<&str> = diff.lines().filter(|line| line.starts_with("@@")).collect();
    assert_eq!(hunks, ["@@ -1,5 +1,5 @@", "@@ -21,4 +21,4 @@"]);
}

#[test]
fn a_file_that_cannot_be_changed_line_by_line_is_left_alone() {
    let changes = [change("local/a", &[("keep_alive", "10", "300")])];
    for config in ["apps.a.keep_alive = 10\n", "[apps]\na = { keep_alive = 10 }\n", "not toml"] {
        assert_eq!(unified(Some(config), &changes), unified(None, &changes), "{config}");
    }
}

#[test]
fn names_are_quoted_as_toml_asks() {
    for odd in ["local/a\"b\\c", "a\"b' ]} --> x", "a\nb", "\u{1b}[31m", "\u{7f}", "ä 'b'"] {
        let changes = [change(odd, &[("keep_alive", "10", "300")])];
        assert!(is_right(&fragment(&changes), &changes), "{odd:?}");
    }
}

#[test]
fn what_is_not_to_be_set_goes() {
    let config = "[apps.a]\npolicy = \"auto\"\nwait_budget = \"2s\"\napp = \"a.py\"\n";
    let changes = [change(
        "local/a",
        &[("wait_price", "12", "30"), ("wait_budget", "\"2s\"", ""), ("keep_alive", "10", "60")],
    )];
    let expected = "\
--- glowplug.toml
+++ glowplug.toml
@@ -1,4 +1,5 @@
 [apps.a]
+wait_price = 30
+keep_alive = 60
 policy = \"auto\"
-wait_budget = \"2s\"
 app = \"a.py\"
";
    assert_eq!(unified(Some(config), &changes), expected);
    assert_eq!(fragment(&changes), "[apps.\"local/a\"]\nwait_price = 30\nkeep_alive = 60\n");
}
