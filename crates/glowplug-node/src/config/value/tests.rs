use super::*;

#[test]
fn a_command_line_is_split_and_nothing_more() {
    let read = |line: &str| Kind::Argv.read(&Raw::Text(line.into()));
    assert_eq!(
        read("./server --port $PORT --name 'a b'").unwrap(),
        Value::List(["./server", "--port", "$PORT", "--name", "a b"].map(Into::into).into())
    );
    assert!(read("./server 'oops").unwrap_err().message.contains("quote"));
    assert!(read("a && b").unwrap_err().help.unwrap().contains("\"sh\", \"-c\""));
}

#[test]
fn values_of_the_wrong_type_say_what_is_expected() {
    let check = |kind: Kind, raw: Raw, expected: &str| {
        assert_eq!(kind.read(&raw).unwrap_err().message, expected);
    };
    check(
        Kind::Duration,
        Raw::Bool(true),
        "must be a duration: a number of seconds, or text such as \"30s\" or \"5m\", not the boolean true",
    );
    check(
        Kind::Count,
        Raw::Text("two".into()),
        "must be a whole number of 0 or more, not the text \"two\"",
    );
    check(Kind::Count, Raw::Integer(-5), "is -5; it must be 0 or more");
    check(Kind::Count, Raw::Integer(1 << 40), "is 1099511627776; it must be at most 4294967295");
    check(Kind::Duration, Raw::Integer(-1), "is -1 s; it must be between 0 s and 10 years");
    check(Kind::Cores, Raw::Float(f64::NAN), "is NaN; it must be between 0 and 4096 cores");
}

#[test]
fn text_of_the_environment_reads_like_the_file() {
    let read = |kind: Kind, text: &str| kind.read_text(text).unwrap();
    assert_eq!(read(Kind::Count, "3"), Value::Count(3));
    assert_eq!(read(Kind::Cores, "1.5"), Value::CpuMillis(1_500));
    assert_eq!(read(Kind::Bool, "true"), Value::Bool(true));
    assert_eq!(read(Kind::Duration, "5m"), Value::Duration(Duration::from_mins(5)));
    assert_eq!(read(Kind::Names, "S, M"), Value::List(vec!["S".into(), "M".into()]));
    assert_eq!(
        read(Kind::Gpus, "H100:80GiB:2,L40:48GiB").to_string(),
        "[{ kind = \"H100\", memory = \"80GiB\", count = 2 }, { kind = \"L40\", memory = \"48GiB\", count = 1 }]"
    );
    assert!(Kind::Count.read_text("many").is_err());
}
