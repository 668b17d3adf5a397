//! The apps that are started: a small one, one with a model of 100 MB, and the example that reads pictures.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::Program;
use crate::repository;

/// Where Debian's python3-torch puts its modules.
const DEBIAN_MODULES: &str = "/usr/lib/python3/dist-packages";

const NUMBERS: &str = r#"
import fal


class Numbers(fal.App, python_version="3.11"):
    requirements = ["numpy==2.1.3"]

    def setup(self):
        import numpy

        self.matrix = numpy.random.default_rng(7).random((512, 512))

    @fal.endpoint("/")
    def sum(self) -> dict:
        return {"sum": float((self.matrix @ self.matrix).sum())}
"#;

/// Torch is the system's, since an environment with its own would be gigabytes.
const MODEL: &str = r#"
import fal


class Model(fal.App, python_version="3.11"):
    def setup(self):
        import sys

        sys.path.append("MODULES")
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(24)))
        self.layers.load_state_dict(torch.load("WEIGHTS"))

    @fal.endpoint("/")
    def run(self) -> dict:
        with self.torch.no_grad():
            return {"sum": float(self.layers(self.torch.ones(1, 1024)).sum())}
"#;

/// Writes weights of 24 layers of 4 MB each.
const WEIGHTS: &str = r"
import sys

import torch

torch.manual_seed(7)
layers = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(24)))
torch.save(layers.state_dict(), sys.argv[1])
";

/// An app, and one request to it.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) file: PathBuf,
    pub(super) class: &'static str,
    /// JSON.
    pub(super) request: String,
}

/// Those that this machine has what they need for. What is left out is told.
pub(super) fn subjects(folder: &Path) -> Result<Vec<Subject>> {
    let mut subjects = vec![numbers(folder)?];
    match model(folder)? {
        Some(model) => subjects.push(model),
        None => eprintln!("no torch app: install Debian's python3-torch to have it measured"),
    }
    subjects.push(ocr()?);
    Ok(subjects)
}

fn numbers(folder: &Path) -> Result<Subject> {
    let file = write(folder, "numbers.py", NUMBERS)?;
    Ok(Subject { name: "numpy", file, class: "Numbers", request: "{}".to_owned() })
}

fn model(folder: &Path) -> Result<Option<Subject>> {
    let system = Path::new("/usr/bin/python3");
    if !Path::new(DEBIAN_MODULES).join("torch").is_dir() || !system.is_file() {
        return Ok(None);
    }
    let weights = folder.join("weights.pt");
    Program::new(system).args(["-c", WEIGHTS]).arg(&weights).run()?;
    let weights = weights.to_str().context("the path of the weights is no UTF-8")?;
    let text = MODEL.replace("MODULES", DEBIAN_MODULES).replace("WEIGHTS", weights);
    let file = write(folder, "model.py", &text)?;
    Ok(Some(Subject { name: "torch", file, class: "Model", request: "{}".to_owned() }))
}

fn ocr() -> Result<Subject> {
    let example = repository::root().join("examples/ocr");
    let picture = example.join("sample.png");
    let encoded = Program::new("base64").arg("--wrap=0").arg(picture).capture()?;
    let request = serde_json::json!({"image": format!("data:image/png;base64,{}", encoded.trim())});
    let file = example.join("app.py");
    Ok(Subject { name: "ocr", file, class: "Ocr", request: request.to_string() })
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
