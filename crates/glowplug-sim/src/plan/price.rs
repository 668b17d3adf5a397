//! What an hour of a runner costs.

use std::collections::BTreeMap;

use super::Error;
use super::result::CostUnit;

/// Prices per hour by machine type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices {
    pub per_hour: BTreeMap<String, f64>,
    /// For people to read, for example `EUR`.
    pub currency: String,
}

impl Prices {
    pub(super) fn unit(&self) -> CostUnit {
        if self.per_hour.is_empty() {
            CostUnit::RunnerHours
        } else {
            CostUnit::Money(self.currency.clone())
        }
    }

    /// Without any price, an hour costs 1. A price for some machines alone would make the others free.
    pub(super) fn of(&self, machine: &str) -> Result<f64, Error> {
        if self.per_hour.is_empty() {
            return Ok(1.0);
        }
        let machine = machine.to_owned();
        match self.per_hour.get(&machine) {
            None => Err(Error::NoPrice { machine }),
            Some(price) if price.is_finite() && *price > 0.0 => Ok(*price),
            Some(price) => Err(Error::Price { machine, price: *price }),
        }
    }
}
