use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic { user: user.to_owned(), password: password.to_owned() }
}

fn lookup(files: Vec<PathBuf>, path: &Path) -> Lookup {
    Lookup { files, path: path.into(), helper_timeout: Duration::from_secs(20) }
}

#[test]
fn every_form_of_the_file_is_read() {
    let text = r#"{"auths": {
        "example.com": {"auth": "dTpwOnc="},
        "https://other.example:5000/v2/": {"username": "a", "password": "b"},
        "https://index.docker.io/v1/": {"identitytoken": "t"},
        "empty.example": {}
    }}"#;
    let check = |registry: &str, expected: Option<Credentials>| {
        assert_eq!(File::read(text).unwrap().written(registry), Ok(expected), "{registry}");
    };
    check("example.com", Some(basic("u", "p:w")));
    check("other.example:5000", Some(basic("a", "b")));
    check("other.example", None);
    check("docker.io", Some(Credentials::Token("t".to_owned())));
    check("empty.example", None);
    check("unknown.example", None);
}

#[test]
fn what_cannot_be_used_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str, expected: &str| {
        let file = folder.path().join("config.json");
        fs::write(&file, text).unwrap();
        let error = lookup(vec![file], folder.path()).find("example.com").unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("config.json"), "{error}");
    };
    check(r#"{"auths": {"example.com": {"auth": "!"}}}"#, "not `user:password` in base64");
    check("no json", "expected");
}

#[test]
fn the_first_file_that_knows_the_registry_counts() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["missing", "one", "two"].map(|name| folder.path().join(name));
    let auth =
        |user: &str| format!(r#"{{"auths": {{"{user}.example": {{"username": "{user}"}}}}}}"#);
    fs::write(&files[1], auth("one")).unwrap();
    fs::write(&files[2], auth("two")).unwrap();
    let lookup = lookup(files.to_vec(), folder.path());
    assert_eq!(lookup.find("two.example").unwrap(), basic("two", ""));
    assert_eq!(lookup.find("three.example").unwrap(), Credentials::Anonymous);
}

/// A helper that does what the script says, with the registry in `$key`.
fn helper(folder: &Path, name: &str, script: &str) {
    let path = folder.join(format!("docker-credential-{name}"));
    let text = format!("#!/bin/sh\n[ \"$1\" = get ] || exit 9\nkey=$(cat)\n{script}\n");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn helpers_are_asked_and_never_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let said = r#"echo "{\"ServerURL\":\"$key\",\"Username\":\"me\",\"Secret\":\"for $key\"}""#;
    helper(folder.path(), "good", said);
    helper(folder.path(), "token", r#"echo '{"Username":"<token>","Secret":"t"}'"#);
    helper(folder.path(), "empty", "echo credentials not found in native keychain; exit 1");
    helper(folder.path(), "broken", "echo nonsense");
    let auths = r#""auths": {"example.com": {"username": "file", "password": "p"}}"#;
    let from_file = basic("file", "p");
    let cases = [
        (r#""credsStore": "good""#, "example.com", basic("me", "for example.com")),
        (r#""credsStore": "good""#, "docker.io", basic("me", "for https://index.docker.io/v1/")),
        (
            r#""credHelpers": {"example.com": "token"}"#,
            "example.com",
            Credentials::Token("t".into()),
        ),
        (r#""credHelpers": {"other.example": "good"}"#, "example.com", from_file.clone()),
        (
            r#""credHelpers": {"example.com": ""}, "credsStore": "good""#,
            "example.com",
            from_file.clone(),
        ),
        (r#""credsStore": "empty""#, "example.com", from_file.clone()),
        (r#""credsStore": "broken""#, "example.com", from_file.clone()),
        (r#""credsStore": "missing""#, "example.com", from_file.clone()),
        (r#""credsStore": "missing""#, "public.example", Credentials::Anonymous),
        (r#""credsStore": "../good""#, "example.com", from_file),
    ];
    let file = folder.path().join("config.json");
    for (setting, registry, expected) in cases {
        fs::write(&file, format!("{{{auths}, {setting}}}")).unwrap();
        let found = lookup(vec![file.clone()], folder.path()).find(registry).unwrap();
        assert!(found == expected, "{setting}: {registry}");
    }
}

#[test]
fn a_helper_that_hangs_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    // It waits for somebody who never comes.
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    helper(folder.path(), "stuck", &format!("exec cat {}", pipe.display()));
    let file = folder.path().join("config.json");
    fs::write(&file, r#"{"credsStore": "stuck"}"#).unwrap();
    let mut lookup = lookup(vec![file], folder.path());
    lookup.path.push(":/usr/bin:/bin");
    lookup.helper_timeout = Duration::from_millis(50);
    assert_eq!(lookup.find("example.com").unwrap(), Credentials::Anonymous);
}
