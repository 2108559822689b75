//! The filter of system calls (seccomp), which lists the calls that a fold needs.
//!
//! Every other call fails with EPERM, and the process is not killed: a newer C library may try a call that is not in
//! the list, and can often do without it. A call of another ABI does not have a number of the list (x32), or ends the
//! process (32 bits).
//!
//! Some calls are in the list although a usual fold does not make them: those of the C libraries glibc and musl when
//! memory is exhausted or corrupt, when the stack overflows, and when the program aborts. The service must see the
//! signal of such a crash, to report it as a failure of the reducer.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The calls that are allowed with any arguments.
const ALLOWED: [i64; 21] = [
    // Memory, without a way to make it executable.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Locks of the threads that already run. The allocator reads the number of processors.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    // Time. Most of these calls do not reach the kernel, but processor time does.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    // The seeds of hash maps.
    libc::SYS_getrandom,
    // The handler of a stack overflow, and an abort.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// A condition: the index of an argument, a comparison, and the value with which the argument is compared.
type Condition = (u8, SeccompCmpOp, u64);

/// Installs the filter in all threads of this process. Also forbids new privileges, which the kernel asks for.
pub fn install() -> Result<(), Error> {
    seccompiler::apply_filter_all_threads(&program()?)
}

fn program() -> Result<BpfProgram, BackendError> {
    let executable = libc::PROT_EXEC as u64;
    let anonymous = libc::MAP_ANONYMOUS as u64;
    let this_process = u64::from(std::process::id());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.into_iter().map(|call| (call, Vec::new())).collect();
    let mut allow_if = |call: i64, conditions: &[Condition]| -> Result<(), BackendError> {
        rules.entry(call).or_default().push(rule(conditions)?);
        Ok(())
    };
    // Standard input, standard output and standard error, and no descriptor that the process might have inherited.
    allow_if(libc::SYS_read, &[(0, Eq, 0)])?;
    for call in [libc::SYS_write, libc::SYS_writev] {
        allow_if(call, &[(0, Eq, 1)])?;
        allow_if(call, &[(0, Eq, 2)])?;
    }
    allow_if(libc::SYS_mmap, &[(2, MaskedEq(executable), 0), (3, MaskedEq(anonymous), anonymous)])?;
    allow_if(libc::SYS_mprotect, &[(2, MaskedEq(executable), 0)])?;
    // An abort sends a signal to a thread. musl names only the thread, so the first one, which has the number of the
    // process, is the only one that can be recognized.
    allow_if(libc::SYS_tgkill, &[(0, Eq, this_process)])?;
    allow_if(libc::SYS_tkill, &[(0, Eq, this_process)])?;
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Returns the rule that applies if all conditions are met. Each is about the lower 32 bits of an argument.
fn rule(conditions: &[Condition]) -> Result<SeccompRule, BackendError> {
    let conditions = conditions.iter().map(|(argument, comparison, value)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, comparison.clone(), *value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}
