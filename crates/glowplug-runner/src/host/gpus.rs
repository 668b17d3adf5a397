//! NVIDIA GPUs, asked from the driver's own library, which is loaded only if it is there.

use glowplug_core::resources::Gpu;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// The file name of the library where only the driver is installed, without a development package.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// What was found, or why nothing was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpus {
    pub found: Vec<Gpu>,
    pub why_none: Option<String>,
}

pub fn find_gpus() -> Gpus {
    match ask_driver() {
        Ok(found) if found.is_empty() => {
            Gpus { found, why_none: Some("the NVIDIA driver reports no GPU".to_owned()) }
        }
        Ok(found) => Gpus { found, why_none: None },
        Err(NvmlError::LibloadingError(_)) => {
            Gpus { found: Vec::new(), why_none: Some("no NVIDIA driver is installed".to_owned()) }
        }
        Err(error) => Gpus {
            found: Vec::new(),
            why_none: Some(format!("the NVIDIA driver does not answer: {error}")),
        },
    }
}

fn ask_driver() -> Result<Vec<Gpu>, NvmlError> {
    let nvml = Nvml::builder().lib_path(LIBRARY.as_ref()).init()?;
    (0..nvml.device_count()?)
        .map(|index| {
            let device = nvml.device_by_index(index)?;
            let kind = model(&device.name()?);
            Ok(Gpu { index, kind, memory_bytes: device.memory_info()?.total })
        })
        .collect()
}

/// The model as machine types name it: `NVIDIA H100 80GB HBM3` → `H100`, `Tesla T4` → `T4`,
/// `NVIDIA GeForce RTX 4090` → `RTX 4090`.
fn model(name: &str) -> String {
    let is_brand = |word: &&str| matches!(*word, "NVIDIA" | "Tesla" | "GeForce" | "Quadro");
    let mut words = name.split_ascii_whitespace().skip_while(is_brand);
    let first = words.next().unwrap_or(name);
    match (first, words.next()) {
        ("RTX" | "GTX" | "TITAN", Some(number)) => format!("{first} {number}"),
        // `H100-SXM4-80GB` and the like: the form is no part of the model.
        _ => first.split('-').next().unwrap_or(first).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_as_machine_types_name_them() {
        let check = |name, expected: &str| assert_eq!(model(name), expected);
        check("NVIDIA H100 80GB HBM3", "H100");
        check("NVIDIA H200", "H200");
        check("NVIDIA A100-SXM4-80GB", "A100");
        check("Tesla T4", "T4");
        check("NVIDIA GeForce RTX 4090", "RTX 4090");
        check("", "");
    }
}
