//! The filter on system calls in the words of the OCI's runtime specification, from the native one's table.
//!
//! It differs where those words cannot say the same. System calls that are younger than the table are allowed,
//! as naming all that are older would cost each start milliseconds; and a program may ask for its personality
//! but not change it, as "one of these" cannot be said.

use serde_json::{Value, json};

use super::super::system_calls::{
    ABSENT, NAMESPACE_FLAGS, REFUSED, REFUSED_FAMILIES, REFUSED_HERE, TERMINAL_INPUT,
    TERMINAL_PASTE,
};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "SCMP_ARCH_AARCH64";

/// The kernel looks at so much of an argument that is a C `int`, and filters are shown 64 bits.
const INT_BITS: u64 = 0xffff_ffff;
const ASK_FOR_PERSONALITY: u64 = 0xffff_ffff;

pub(super) fn profile() -> Value {
    let name = |(name, _): &(&str, _)| name.trim_start_matches("SYS_").to_owned();
    let refused: Vec<String> = REFUSED.iter().chain(REFUSED_HERE).map(name).collect();
    let absent: Vec<String> = ABSENT.iter().map(name).collect();
    let mut calls = vec![
        json!({ "names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM }),
        json!({ "names": absent, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }),
    ];
    for flag in NAMESPACE_FLAGS.map(|flag| u64::from(flag.cast_unsigned())) {
        calls.push(refuse("clone", 0, (flag, flag)));
    }
    for family in REFUSED_FAMILIES.map(|family| u64::from(family.cast_unsigned())) {
        calls.push(refuse("socket", 0, (INT_BITS, family)));
    }
    for request in [TERMINAL_INPUT, TERMINAL_PASTE] {
        calls.push(refuse("ioctl", 1, (INT_BITS, u64::from(request))));
    }
    calls.push(json!({
        "names": ["personality"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": libc::EPERM,
        "args": [{ "index": 0, "value": ASK_FOR_PERSONALITY, "op": "SCMP_CMP_NE" }],
    }));
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [ARCHITECTURE],
        "syscalls": calls,
    })
}

/// Where these bits of an argument have this value.
fn refuse(name: &str, argument: u32, (bits, value): (u64, u64)) -> Value {
    json!({
        "names": [name],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": libc::EPERM,
        "args": [{ "index": argument, "value": bits, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_of_the_table_is_named() {
        let profile = profile();
        let names = |at: usize| {
            let names = profile["syscalls"][at]["names"].as_array().unwrap().clone();
            names.into_iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(0).len(), REFUSED.len() + REFUSED_HERE.len());
        assert!(names(0).contains(&"ptrace".to_owned()));
        assert!(names(1).contains(&"io_uring_setup".to_owned()));
    }
}
