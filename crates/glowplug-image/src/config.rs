//! What an image says about how to run it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The part of an image's configuration that a runner needs.
///
/// Source: OCI image specification, "Image Configuration", `config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user`, `user:group`, or numbers; empty for root.
    pub user: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// Empty for the root directory.
    pub working_dir: String,
    /// Such as `SIGTERM` or `15`; empty for SIGTERM.
    pub stop_signal: String,
    /// Such as `8080/tcp`, in order.
    #[serde(deserialize_with = "null_is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl ImageConfig {
    /// The lowest TCP port that the image says it listens on.
    pub fn port(&self) -> Option<u16> {
        let tcp = |port: &String| {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            (protocol == "tcp").then(|| number.parse().ok()).flatten()
        };
        self.exposed_ports.keys().filter_map(tcp).min()
    }

    /// The program and its arguments, where the app names none.
    pub fn argv(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).cloned().collect()
    }
}

/// Some builders write `null` where others leave a field out.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_of_other_builders_are_read() {
        let text = r#"{"Entrypoint": null, "Cmd": ["python", "app.py"], "Env": ["A=b"],
            "ExposedPorts": {"9090/udp": {}, "8080/tcp": {}, "80": {}}, "Labels": null, "Volumes": {"/x": {}}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.argv(), ["python", "app.py"]);
        assert_eq!(config.port(), Some(80));
        assert_eq!((config.user.as_str(), config.env.len()), ("", 1));
        assert_eq!(serde_json::from_str::<ImageConfig>("{}").unwrap().port(), None);
    }
}
