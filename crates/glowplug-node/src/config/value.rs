//! The kinds of values a setting may have, how each is written, and how each is read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use glowplug_core::retry::{Budgets, Condition};
use glowplug_core::spec::{WAIT_PRICES, wait_price};

use super::database_url::DatabaseUrl;
use super::document::{Entry, Raw};
use super::network::Network;
use super::problem::suggest;
use super::retries;
use super::unit::{BYTES_MAX, parse_bytes, parse_duration, seconds, write_bytes, write_duration};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IP address and port.
    Address,
    /// File or directory; relative to the config file, or to the current directory elsewhere.
    Path,
    Text,
    Bool,
    /// Whether, or where.
    Place,
    Choice(&'static [&'static str]),
    /// Number of seconds, or text such as `30s`.
    Duration,
    /// Number of bytes, or text such as `16GiB`.
    Bytes,
    /// CPU cores, with a fraction if wanted.
    Cores,
    Count,
    /// Of 0 or more, with a fraction if wanted.
    Number,
    /// What a second of waiting is worth: a number, or a name for one.
    WaitPrice,
    /// A name or a list of them.
    Names,
    /// A program and its arguments: a list, or a line that is split like a shell would.
    Argv,
    /// A table of texts.
    Texts,
    /// A list of `{ kind, memory, count }`.
    Gpus,
    /// A PostgreSQL database; holds a password.
    DatabaseUrl,
    /// An address or network, or a list of them.
    Networks,
    /// Retries by condition.
    Retries,
    /// A condition of retries, or a list of them.
    Conditions,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Address(SocketAddr),
    Text(String),
    Bool(bool),
    Duration(Duration),
    Bytes(u64),
    CpuMillis(u64),
    Count(u32),
    Number(f64),
    List(Vec<String>),
    Texts(BTreeMap<String, String>),
    Gpus(Vec<GpuGroup>),
    DatabaseUrl(DatabaseUrl),
    Networks(Vec<Network>),
    Retries(Budgets),
    Conditions(Vec<Condition>),
}

/// Some GPUs of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuGroup {
    pub kind: String,
    /// Of each.
    pub memory_bytes: u64,
    pub count: u32,
}

/// Why a value does not fit its kind: what is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Unfit {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }
}

/// CPU cores of one machine.
const CORES_MAX: f64 = 4_096.0;
/// GPUs of one machine.
const GPUS_MAX: u32 = 1_024;

impl Kind {
    /// How such a value is written, for messages and for the reference.
    pub(super) fn expected(self) -> String {
        match self {
            Self::Address => "an IP address and port such as \"127.0.0.1:8642\"".into(),
            Self::Path => "a path in quotes".into(),
            Self::Text => "text in quotes".into(),
            Self::Bool => "true or false".into(),
            Self::Place => "true, false, or a path in quotes".into(),
            Self::Choice(options) => format!("one of {}", quoted(options)),
            Self::Duration => {
                "a duration: a number of seconds, or text such as \"30s\" or \"5m\"".into()
            }
            Self::Bytes => {
                "an amount of memory: a number of bytes, or text such as \"16GiB\"".into()
            }
            Self::Cores => "a number of CPU cores such as 2 or 0.5".into(),
            Self::Count => "a whole number of 0 or more".into(),
            Self::Number => "a number of 0 or more".into(),
            Self::WaitPrice => {
                let named: Vec<String> = WAIT_PRICES
                    .iter()
                    .map(|(name, price)| format!("\"{name}\" ({price})"))
                    .collect();
                format!("a number of 0 or more, or one of {}", named.join(", "))
            }
            Self::Names => "a name in quotes or a list of names".into(),
            Self::Argv => "a command line in quotes or a list of arguments".into(),
            Self::Texts => "a table of texts such as { NAME = \"value\" }".into(),
            Self::Gpus => {
                "a list such as [{ kind = \"H100\", memory = \"80GiB\", count = 2 }]".into()
            }
            Self::DatabaseUrl => "a URL such as \"postgres://user:password@host/database\"".into(),
            Self::Networks => {
                "an address, a network such as \"10.0.0.0/8\", or a list of them".into()
            }
            Self::Retries => "a table such as { server_error = { retries = 2 } }".into(),
            Self::Conditions => {
                format!("one of {}, or a list of them", quoted(&retries::CONDITIONS))
            }
        }
    }

    /// Reads a value of the config file.
    pub(super) fn read(self, raw: &Raw) -> Result<Value, Unfit> {
        let wrong_type =
            || Unfit::new(format!("must be {}, not {}", self.expected(), raw.describe()));
        match (self, raw) {
            (Self::Text | Self::Path | Self::Place, Raw::Text(text)) if text.is_empty() => {
                Err(Unfit::new("is empty"))
            }
            (Self::Text | Self::Path | Self::Place, Raw::Text(text)) => {
                Ok(Value::Text(text.clone()))
            }
            (Self::Address, Raw::Text(text)) => {
                address(text).map(Value::Address).ok_or_else(wrong_type)
            }
            (Self::Bool | Self::Place, Raw::Bool(value)) => Ok(Value::Bool(*value)),
            (Self::Choice(options), Raw::Text(text)) => {
                if options.contains(&text.as_str()) {
                    Ok(Value::Text(text.clone()))
                } else {
                    let help = Some(suggest(text, options, "choose one of"));
                    Err(Unfit { message: format!("cannot be \"{text}\""), help })
                }
            }
            (Self::Duration, Raw::Text(text)) => {
                parse_duration(text).map(Value::Duration).ok_or_else(wrong_type)
            }
            (Self::Duration, number @ (Raw::Integer(_) | Raw::Float(_))) => {
                let number = as_f64(number);
                seconds(number).map(Value::Duration).ok_or_else(|| {
                    Unfit::new(format!("is {number} s; it must be between 0 s and 10 years"))
                })
            }
            (Self::Bytes, Raw::Text(text)) => {
                parse_bytes(text).map(Value::Bytes).ok_or_else(wrong_type)
            }
            (Self::Bytes, Raw::Integer(number)) => u64::try_from(*number)
                .ok()
                .filter(|bytes| *bytes <= BYTES_MAX)
                .map(Value::Bytes)
                .ok_or_else(|| Unfit::new(format!("cannot be {number} bytes"))),
            (Self::Cores, number @ (Raw::Integer(_) | Raw::Float(_))) => cores(as_f64(number)),
            (Self::Count, Raw::Integer(number)) => {
                u32::try_from(*number).map(Value::Count).map_err(|_| {
                    Unfit::new(format!("is {number}; it must be {}", count_range(*number)))
                })
            }
            (Self::Number | Self::WaitPrice, number @ (Raw::Integer(_) | Raw::Float(_))) => {
                let number = as_f64(number);
                if number.is_finite() && number >= 0.0 {
                    Ok(Value::Number(number))
                } else {
                    Err(Unfit::new(format!("is {number}; it must be 0 or more")))
                }
            }
            (Self::WaitPrice, Raw::Text(name)) => {
                wait_price(name).map(Value::Number).ok_or_else(|| {
                    let names = WAIT_PRICES.map(|(name, _)| name);
                    let help = Some(suggest(name, &names, "give a number, or choose one of"));
                    Unfit { message: format!("cannot be \"{name}\""), help }
                })
            }
            (Self::Names, Raw::Text(name)) => Ok(Value::List(vec![name.clone()])),
            (Self::Argv, Raw::Text(line)) => split_command(line).map(Value::List),
            (Self::Names | Self::Argv, Raw::List(items)) => {
                names(items).map(Value::List).ok_or_else(wrong_type)
            }
            (Self::Texts, Raw::Table(entries)) => texts(entries),
            (Self::Gpus, Raw::List(items)) => {
                items.iter().map(gpu_group).collect::<Result<_, _>>().map(Value::Gpus)
            }
            // What was written is not repeated: there may be a password in it.
            (Self::DatabaseUrl, Raw::Text(url)) => DatabaseUrl::parse(url)
                .map(Value::DatabaseUrl)
                .ok_or_else(|| Unfit::new(format!("must be {}", self.expected()))),
            (Self::Networks | Self::Conditions, Raw::Text(name)) => {
                self.read_names(vec![name.clone()])
            }
            (Self::Networks | Self::Conditions, Raw::List(items)) => {
                self.read_names(names(items).ok_or_else(wrong_type)?)
            }
            (Self::Retries, Raw::Table(entries)) => retries::budgets(entries).map(Value::Retries),
            _ => Err(wrong_type()),
        }
    }

    /// Reads a list of what has a name each.
    fn read_names(self, names: Vec<String>) -> Result<Value, Unfit> {
        match self {
            Self::Networks => names
                .iter()
                .map(|name| network(name))
                .collect::<Result<_, _>>()
                .map(Value::Networks),
            Self::Conditions => retries::conditions(names).map(Value::Conditions),
            _ => Ok(Value::List(names)),
        }
    }

    /// Reads a value of the environment or the command line, where everything is text.
    pub(super) fn read_text(self, text: &str) -> Result<Value, Unfit> {
        let number = || {
            let whole = text.parse().map(Raw::Integer).ok();
            whole.or_else(|| text.parse().map(Raw::Float).ok())
        };
        let raw = match self {
            Self::Duration
            | Self::Bytes
            | Self::Cores
            | Self::Count
            | Self::Number
            | Self::WaitPrice => number(),
            Self::Bool => text.parse().map(Raw::Bool).ok(),
            Self::Names | Self::Networks | Self::Conditions => Some(Raw::List(comma_list(text))),
            Self::Gpus => Some(Raw::List(comma_list(text).iter().map(gpu_from_text).collect())),
            _ => None,
        };
        self.read(&raw.unwrap_or_else(|| Raw::Text(text.to_owned())))
    }
}

fn comma_list(text: &str) -> Vec<Raw> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| Raw::Text(item.to_owned())).collect()
}

/// `H100:80GiB:2`, the form of the environment, as the table it stands for.
fn gpu_from_text(item: &Raw) -> Raw {
    let Raw::Text(text) = item else { return item.clone() };
    let mut parts = text.splitn(3, ':');
    let mut entries = Vec::new();
    for key in ["kind", "memory", "count"] {
        let Some(part) = parts.next() else { break };
        let value = match part.parse() {
            Ok(count) if key == "count" => Raw::Integer(count),
            _ => Raw::Text(part.to_owned()),
        };
        entries.push(Entry { key: key.to_owned(), line: 0, value });
    }
    Raw::Table(entries)
}

fn count_range(number: i128) -> String {
    if number < 0 { "0 or more".to_owned() } else { format!("at most {}", u32::MAX) }
}

fn as_f64(number: &Raw) -> f64 {
    match number {
        #[expect(clippy::cast_precision_loss, reason = "numbers this large are refused anyway")]
        Raw::Integer(number) => *number as f64,
        Raw::Float(number) => *number,
        _ => f64::NAN,
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

fn cores(number: f64) -> Result<Value, Unfit> {
    if !(0.0..=CORES_MAX).contains(&number) {
        return Err(Unfit::new(format!("is {number}; it must be between 0 and {CORES_MAX} cores")));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie between 0 and CORES_MAX"
    )]
    Ok(Value::CpuMillis((number * 1_000.0).round() as u64))
}

/// Splits a line as a shell does, quotes and backslashes included, and does nothing else a shell does.
fn split_command(line: &str) -> Result<Vec<String>, Unfit> {
    const SHELL_ONLY: [&str; 8] = ["|", "||", "&&", ";", ">", ">>", "<", "&"];
    let argv = shlex::split(line)
        .ok_or_else(|| Unfit::new("has a quote that is not closed, or ends with a backslash"))?;
    match argv.iter().find(|word| SHELL_ONLY.contains(&word.as_str())) {
        None => Ok(argv),
        Some(word) => Err(Unfit {
            message: format!("holds `{word}`, but no shell reads it"),
            help: Some("to use a shell, write [\"sh\", \"-c\", \"…\"]".into()),
        }),
    }
}

fn network(text: &str) -> Result<Network, Unfit> {
    Network::parse(text).ok_or_else(|| Unfit {
        message: format!("has \"{text}\", which is neither an address nor a network"),
        help: Some("write it as \"127.0.0.1\" or \"10.0.0.0/8\"".into()),
    })
}

fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    quoted.join(", ")
}

fn names(items: &[Raw]) -> Option<Vec<String>> {
    let text = |item: &Raw| match item {
        Raw::Text(text) => Some(text.clone()),
        _ => None,
    };
    items.iter().map(text).collect()
}

fn texts(entries: &[Entry]) -> Result<Value, Unfit> {
    let mut texts = BTreeMap::new();
    for Entry { key, value, .. } in entries {
        let Raw::Text(text) = value else {
            let message = format!("has a `{key}` that is {}, not text", value.describe());
            return Err(Unfit {
                message,
                help: Some(format!("put the value of `{key}` in quotes")),
            });
        };
        if key.is_empty() || key.contains(['=', '\0']) || text.contains('\0') {
            return Err(Unfit::new(format!(
                "has a name or value that no process can be given: `{key}`"
            )));
        }
        texts.insert(key.clone(), text.clone());
    }
    Ok(Value::Texts(texts))
}

fn gpu_group(item: &Raw) -> Result<GpuGroup, Unfit> {
    let Raw::Table(entries) = item else {
        return Err(Unfit::new(format!(
            "must be {}, not a list with {}",
            Kind::Gpus.expected(),
            item.describe()
        )));
    };
    let (mut kind, mut memory_bytes, mut count) = (None, None, 1);
    for Entry { key, value, .. } in entries {
        let read = |as_kind: Kind| {
            as_kind.read(value).map_err(|unfit| Unfit {
                message: format!("has a `{key}` that {}", unfit.message),
                help: unfit.help,
            })
        };
        match key.as_str() {
            "kind" => kind = Some(read(Kind::Text)?),
            "memory" => memory_bytes = Some(read(Kind::Bytes)?),
            "count" => {
                if let Value::Count(number) = read(Kind::Count)? {
                    count = number;
                }
            }
            _ => {
                return Err(Unfit {
                    message: format!("has an entry with the unknown key `{key}`"),
                    help: Some(suggest(key, &["kind", "memory", "count"], "its keys are")),
                });
            }
        }
    }
    match (kind, memory_bytes) {
        (Some(Value::Text(kind)), Some(Value::Bytes(memory_bytes))) if count <= GPUS_MAX => {
            Ok(GpuGroup { kind, memory_bytes, count })
        }
        (Some(_), Some(_)) => {
            Err(Unfit::new(format!("has {count} GPUs of one kind; at most {GPUS_MAX} are allowed")))
        }
        _ => Err(Unfit::new("has an entry without `kind` or without `memory`")),
    }
}

impl fmt::Display for Value {
    /// As it would be written in the config file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "\"{address}\""),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Duration(duration) => write!(f, "\"{}\"", write_duration(*duration)),
            Self::Bytes(bytes) => write!(f, "\"{}\"", write_bytes(*bytes)),
            Self::CpuMillis(millis) => match (millis / 1_000, millis % 1_000) {
                (whole, 0) => write!(f, "{whole}"),
                (whole, rest) => {
                    write!(f, "{whole}.{}", format!("{rest:03}").trim_end_matches('0'))
                }
            },
            Self::Count(count) => write!(f, "{count}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::List(items) => write!(f, "{items:?}"),
            Self::Texts(texts) => {
                let pairs: Vec<String> =
                    texts.iter().map(|(key, value)| format!("{key} = {value:?}")).collect();
                write!(f, "{{ {} }}", pairs.join(", "))
            }
            Self::Gpus(groups) => {
                let groups: Vec<String> = groups
                    .iter()
                    .map(|group| {
                        format!(
                            "{{ kind = {:?}, memory = \"{}\", count = {} }}",
                            group.kind,
                            write_bytes(group.memory_bytes),
                            group.count
                        )
                    })
                    .collect();
                write!(f, "[{}]", groups.join(", "))
            }
            Self::DatabaseUrl(url) => write!(f, "\"{url}\""),
            Self::Networks(networks) => {
                let texts: Vec<String> =
                    networks.iter().map(|network| format!("\"{network}\"")).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Self::Retries(budgets) => f.write_str(&retries::written(budgets)),
            Self::Conditions(conditions) => {
                let texts: Vec<String> =
                    conditions.iter().map(|condition| format!("\"{condition}\"")).collect();
                write!(f, "[{}]", texts.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
