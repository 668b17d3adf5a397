//! The filter on a container's system calls.
//!
//! Everything is allowed that is known here and not refused by name, and nothing that is not known: a system
//! call that is younger than this file answers as on an older kernel, which programs are prepared for.
//! Refused is what a program in a container has no use for and break-outs had: namespaces, mounts, modules,
//! tracing, the kernel's keys, clocks, swap, and the interfaces in which its gravest errors are found.
//!
//! The filter is a binary search over the numbers, so that it costs a call some eight comparisons.

use std::io;

use libc::{
    AF_ALG, AF_VSOCK, BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER,
    CLONE_NEWUTS, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SYS_mseal, c_int,
    c_long, sock_filter, sock_fprog,
};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The youngest system call that was looked at for this list.
const LAST_KNOWN: c_long = SYS_mseal;

/// Places in what the filter is shown of a call, on a little-endian machine.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

/// Putting characters into the input of a terminal that may be somebody else's.
pub(super) const TERMINAL_INPUT: u32 = 0x5412;
pub(super) const TERMINAL_PASTE: u32 = 0x541c;
/// Personalities that only change how the kernel names itself and what it counts.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, u32::MAX];

/// What `clone` may not ask for.
pub(super) const NAMESPACE_FLAGS: [c_int; 7] = [
    CLONE_NEWNS,
    CLONE_NEWCGROUP,
    CLONE_NEWUTS,
    CLONE_NEWIPC,
    CLONE_NEWUSER,
    CLONE_NEWPID,
    CLONE_NEWNET,
];
/// What reaches past the network namespace or into the kernel's crypto.
pub(super) const REFUSED_FAMILIES: [c_int; 2] = [AF_VSOCK, AF_ALG];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// Answers with this error.
    Refused(c_int),
    /// Processes and threads, not namespaces.
    Clone,
    /// Not the families that reach past the network namespace or into the kernel's crypto.
    Socket,
    /// Not typing into terminals.
    Control,
    Personality,
}

/// The kernel's name, as the headers have it, and the number on this architecture.
type Call = (&'static str, c_long);

macro_rules! calls {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), libc::$name)),*]
    };
}

pub(super) const REFUSED: &[Call] = calls![
    SYS_acct,
    SYS_add_key,
    SYS_adjtimex,
    SYS_bpf,
    SYS_clock_adjtime,
    SYS_clock_settime,
    SYS_delete_module,
    SYS_fanotify_init,
    SYS_finit_module,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fsopen,
    SYS_fspick,
    SYS_init_module,
    SYS_kcmp,
    SYS_kexec_file_load,
    SYS_kexec_load,
    SYS_keyctl,
    SYS_lookup_dcookie,
    SYS_migrate_pages,
    SYS_mount,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_move_pages,
    SYS_nfsservctl,
    SYS_open_by_handle_at,
    SYS_open_tree,
    SYS_perf_event_open,
    SYS_pivot_root,
    SYS_process_madvise,
    SYS_ptrace,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_reboot,
    SYS_request_key,
    SYS_setns,
    SYS_settimeofday,
    SYS_swapoff,
    SYS_swapon,
    SYS_syslog,
    SYS_umount2,
    SYS_unshare,
    SYS_userfaultfd,
    SYS_vhangup,
];

/// Programs have another way if these are not there.
pub(super) const ABSENT: &[Call] =
    calls![SYS_clone3, SYS_io_uring_enter, SYS_io_uring_register, SYS_io_uring_setup,];

#[cfg(target_arch = "x86_64")]
pub(super) const REFUSED_HERE: &[Call] =
    calls![SYS_ioperm, SYS_iopl, SYS_modify_ldt, SYS_sysfs, SYS_uselib, SYS_ustat,];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const REFUSED_HERE: &[Call] = &[];

/// A filter, ready to be put on.
#[derive(Debug)]
pub(super) struct Filter(Vec<Instruction>);

/// What the kernel calls a `sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u32,
    /// How far to jump if it holds, and if not.
    jumps: (u8, u8),
    value: u32,
}

impl Filter {
    pub(super) fn new() -> Self {
        let mut program = vec![
            load(ARCHITECTURE_AT),
            jump(BPF_JEQ, ARCHITECTURE, (1, 0)),
            give(SECCOMP_RET_KILL_PROCESS),
            load(NUMBER_AT),
        ];
        program.extend(search(&segments()));
        Self(program)
    }

    /// What the kernel is given when the filter is put on.
    pub(super) fn program(&self) -> Vec<sock_filter> {
        let narrow = |code: u32| u16::try_from(code).expect("codes are of two bytes");
        let to_kernel = |step: &Instruction| sock_filter {
            code: narrow(step.code),
            jt: step.jumps.0,
            jf: step.jumps.1,
            k: step.value,
        };
        self.0.iter().map(to_kernel).collect()
    }
}

/// Puts the filter on this process for good. Needs `no_new_privs`. Makes a system call only.
pub(super) fn put_on(program: &[sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    #[expect(unsafe_code, reason = "filters have no safe interface")]
    // SAFETY: the program is of the length that stands beside it, and the kernel only reads it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// From which number on what holds, in order.
fn segments() -> Vec<(u32, Verdict)> {
    let mut special: Vec<(c_long, Verdict)> = vec![
        (libc::SYS_clone, Verdict::Clone),
        (libc::SYS_socket, Verdict::Socket),
        (libc::SYS_ioctl, Verdict::Control),
        (libc::SYS_personality, Verdict::Personality),
    ];
    let refused = REFUSED.iter().chain(REFUSED_HERE);
    special.extend(refused.map(|(_, number)| (*number, Verdict::Refused(libc::EPERM))));
    special.extend(ABSENT.iter().map(|(_, number)| (*number, Verdict::Refused(libc::ENOSYS))));
    special.sort_unstable_by_key(|(number, _)| *number);
    let number = |number: c_long| u32::try_from(number).expect("system calls count from zero");
    let mut segments = vec![(0, Verdict::Allowed)];
    let mut push = |start: u32, verdict: Verdict| {
        if segments.last().is_some_and(|last| last.0 == start) {
            segments.pop();
        }
        if segments.last().is_none_or(|last| last.1 != verdict) {
            segments.push((start, verdict));
        }
    };
    for (call, verdict) in special {
        push(number(call), verdict);
        push(number(call) + 1, Verdict::Allowed);
    }
    push(number(LAST_KNOWN) + 1, Verdict::Refused(libc::ENOSYS));
    segments
}

fn search(segments: &[(u32, Verdict)]) -> Vec<Instruction> {
    match segments {
        [] => Vec::new(),
        [(_, verdict)] => answer(*verdict),
        _ => {
            let (low, high) = segments.split_at(segments.len() / 2);
            let (low, rest) = (search(low), search(high));
            let over = u8::try_from(low.len()).expect("the filter is shorter than a jump is long");
            let mut program = vec![jump(BPF_JGE, high[0].0, (over, 0))];
            program.extend(low);
            program.extend(rest);
            program
        }
    }
}

fn answer(verdict: Verdict) -> Vec<Instruction> {
    let refused = refuse(libc::EPERM);
    let unless_any = |argument: u32, kind: u32, values: &[u32]| {
        let mut program = vec![load(ARGUMENTS_AT + argument * ARGUMENT_BYTES)];
        for (index, value) in values.iter().enumerate() {
            let over = u8::try_from(values.len() - index).expect("the values are few");
            program.push(jump(kind, *value, (over, 0)));
        }
        program
    };
    let unsigned = |value: c_int| u32::from_ne_bytes(value.to_ne_bytes());
    match verdict {
        Verdict::Allowed => vec![give(SECCOMP_RET_ALLOW)],
        Verdict::Refused(error) => vec![refuse(error)],
        Verdict::Clone => {
            let spaces = NAMESPACE_FLAGS.into_iter().fold(0, |all, flag| all | flag);
            let mut program = unless_any(0, BPF_JSET, &[unsigned(spaces)]);
            program.extend([give(SECCOMP_RET_ALLOW), refused]);
            program
        }
        Verdict::Socket => {
            let mut program = unless_any(0, BPF_JEQ, &REFUSED_FAMILIES.map(unsigned));
            program.extend([give(SECCOMP_RET_ALLOW), refused]);
            program
        }
        Verdict::Control => {
            let mut program = unless_any(1, BPF_JEQ, &[TERMINAL_INPUT, TERMINAL_PASTE]);
            program.extend([give(SECCOMP_RET_ALLOW), refused]);
            program
        }
        Verdict::Personality => {
            let mut program = unless_any(0, BPF_JEQ, &PERSONALITIES);
            program.extend([refused, give(SECCOMP_RET_ALLOW)]);
            program
        }
    }
}

fn load(at: u32) -> Instruction {
    Instruction { code: BPF_LD | BPF_W | BPF_ABS, jumps: (0, 0), value: at }
}

fn jump(kind: u32, value: u32, jumps: (u8, u8)) -> Instruction {
    Instruction { code: BPF_JMP | kind | BPF_K, jumps, value }
}

fn give(action: u32) -> Instruction {
    Instruction { code: BPF_RET | BPF_K, jumps: (0, 0), value: action }
}

fn refuse(error: c_int) -> Instruction {
    give(SECCOMP_RET_ERRNO | error.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a call, by the rules of the kernel's machine.
    fn verdict(architecture: u32, number: u32, arguments: [u32; 2]) -> u32 {
        let filter = Filter::new();
        let (mut at, mut held) = (0, 0);
        loop {
            let step = filter.0[at];
            at += 1;
            let holds = match step.code {
                code if code == BPF_RET | BPF_K => return step.value,
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    held = match step.value {
                        NUMBER_AT => number,
                        ARCHITECTURE_AT => architecture,
                        argument => arguments[usize::from(argument > ARGUMENTS_AT)],
                    };
                    continue;
                }
                code if code == BPF_JMP | BPF_JEQ | BPF_K => held == step.value,
                code if code == BPF_JMP | BPF_JGE | BPF_K => held >= step.value,
                code if code == BPF_JMP | BPF_JSET | BPF_K => held & step.value != 0,
                code => panic!("unknown instruction {code:#x}"),
            };
            at += usize::from(if holds { step.jumps.0 } else { step.jumps.1 });
        }
    }

    fn call(number: c_long) -> u32 {
        u32::try_from(number).unwrap()
    }

    fn flags(flags: c_int) -> u32 {
        flags.cast_unsigned()
    }

    fn error(number: c_int) -> u32 {
        SECCOMP_RET_ERRNO | number.unsigned_abs()
    }

    #[test]
    fn every_number_gets_the_verdict_of_the_list() {
        let holds = |calls: &[Call], number| calls.iter().any(|call| call.1 == number);
        for number in 0..=LAST_KNOWN + 40 {
            let expected = if number > LAST_KNOWN || holds(ABSENT, number) {
                error(libc::ENOSYS)
            } else if holds(REFUSED, number) || holds(REFUSED_HERE, number) {
                error(libc::EPERM)
            } else {
                SECCOMP_RET_ALLOW
            };
            assert_eq!(verdict(ARCHITECTURE, call(number), [0, 0]), expected, "{number}");
        }
        // The second set of numbers of x86, and another processor's.
        assert_eq!(verdict(ARCHITECTURE, 0x4000_0000, [0, 0]), error(libc::ENOSYS));
        assert_eq!(verdict(0x4000_0003, 0, [0, 0]), SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn some_calls_depend_on_what_they_ask_for() {
        let check = |number: c_long, arguments: [u32; 2], allowed| {
            let expected = if allowed { SECCOMP_RET_ALLOW } else { error(libc::EPERM) };
            let got = verdict(ARCHITECTURE, call(number), arguments);
            assert_eq!(got, expected, "{number} {arguments:?}");
        };
        check(libc::SYS_clone, [flags(libc::CLONE_VM | libc::CLONE_THREAD), 0], true);
        check(libc::SYS_clone, [flags(CLONE_NEWUSER | libc::SIGCHLD), 0], false);
        check(libc::SYS_clone, [flags(CLONE_NEWNET), 0], false);
        check(libc::SYS_socket, [flags(libc::AF_INET), 0], true);
        check(libc::SYS_socket, [flags(libc::AF_UNIX), 0], true);
        check(libc::SYS_socket, [flags(AF_VSOCK), 0], false);
        check(libc::SYS_socket, [flags(AF_ALG), 0], false);
        check(libc::SYS_ioctl, [0, 0x5401], true);
        check(libc::SYS_ioctl, [0, TERMINAL_INPUT], false);
        check(libc::SYS_ioctl, [0, TERMINAL_PASTE], false);
        check(libc::SYS_personality, [0, 0], true);
        check(libc::SYS_personality, [u32::MAX, 0], true);
        check(libc::SYS_personality, [0x4_0000, 0], false);
    }
}
