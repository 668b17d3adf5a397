//! Plans: recorded traffic through the engine at many settings, and what is best for which intent.
//!
//! | file | holds |
//! | --- | --- |
//! | `result.rs` | what a plan says: the `--json` output |
//! | `setting.rs` | what is tried |

pub mod result;
pub mod setting;
