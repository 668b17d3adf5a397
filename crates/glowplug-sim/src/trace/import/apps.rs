//! Names of apps, each once.

use std::collections::HashMap;

use super::super::Fault;
use super::super::limits::{APPS_MAX, NAME_BYTES_MAX};

/// Numbers names in the order of their first appearance.
#[derive(Debug, Default)]
pub(super) struct Apps {
    /// Only asked, never walked through: its order tells nothing.
    numbers: HashMap<Box<str>, u32>,
    names: Vec<Box<str>>,
}

impl Apps {
    pub(super) fn number(&mut self, name: &str) -> Result<u32, Fault> {
        if let Some(number) = self.numbers.get(name) {
            return Ok(*number);
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        if number >= APPS_MAX {
            return Err(Fault::Apps);
        }
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            let problem = format!("its name has {} bytes, not 1 to {NAME_BYTES_MAX}", name.len());
            return Err(Fault::App(problem));
        }
        self.numbers.insert(name.into(), number);
        self.names.push(name.into());
        Ok(number)
    }

    pub(super) fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }
}
