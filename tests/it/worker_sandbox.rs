//! Promise P5: a reducer cannot leave its worker process. The kernel refuses files, the network, other processes and
//! new privileges to the worker, and the service logs a warning if the kernel cannot.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};

use annals::reducers::javascript::sandbox;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use serde_json::json;

use crate::cli::annals;
use crate::support::{LoggedService, TestDatabase, http_client};

/// The variable of a test that runs again in a process of its own, because a filter cannot be removed.
const ACTION: &str = "WORKER_SANDBOX_ACTION";

/// Returns a command that runs a test of this file in a process of its own.
fn again(test: &str, action: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args([format!("worker_sandbox::{test}").as_str(), "--exact", "--nocapture"]).env(ACTION, action);
    command
}

fn action() -> Option<String> {
    std::env::var(ACTION).ok()
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn all_threads_of_a_worker_are_confined_before_it_reads_a_source() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
    command.arg("reducer-worker").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut worker = command.spawn().expect("the worker starts");
    let mut line = String::new();
    BufReader::new(worker.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    assert_eq!(line, "{\"started\":{\"unfiltered\":null}}\n");
    let threads = std::fs::read_dir(format!("/proc/{}/task", worker.id())).expect("its threads");
    let states: Vec<String> = threads
        .map(|thread| std::fs::read_to_string(thread.expect("a thread").path().join("status")).expect("its status"))
        .collect();
    // One thread folds, and the other one watches the fold.
    assert_eq!(states.len(), 2);
    for state in states {
        assert!(state.contains("\nNoNewPrivs:\t1\n"), "{state}");
        // 2 is a filter.
        assert!(state.contains("\nSeccomp:\t2\n"), "{state}");
    }
    drop(worker.stdin.take());
    assert!(worker.wait().expect("the worker ends").success());
}

/// Tries what native code in a worker might try. Returns each attempt with its result.
fn attempts() -> [(&'static str, io::Result<()>); 8] {
    let limit = Resource::RLIMIT_CORE;
    let change_limit = || getrlimit(limit).and_then(|(soft, hard)| setrlimit(limit, soft, hard));
    [
        ("to read a file", File::open("/proc/self/status").map(drop)),
        ("to write a file", File::create("/dev/null").map(drop)),
        ("to connect", TcpStream::connect(("127.0.0.1", 1)).map(drop)),
        ("to create a Unix socket", UnixStream::pair().map(drop)),
        ("to start a program", Command::new("/bin/true").status().map(drop)),
        ("to start a thread", std::thread::Builder::new().spawn(|| ()).map(drop)),
        ("to send a signal", kill(Pid::this(), None).map_err(io::Error::from)),
        ("to change a limit", change_limit().map_err(io::Error::from)),
    ]
}

#[test]
fn the_filter_refuses_files_the_network_processes_threads_signals_and_limits() {
    const TEST: &str = "the_filter_refuses_files_the_network_processes_threads_signals_and_limits";
    if action().is_some() {
        sandbox::filter_system_calls().expect("a filter");
        for (attempt, result) in attempts() {
            let refused = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
            println!("{attempt}: {}", if refused { "refused".to_owned() } else { format!("{result:?}") });
        }
        std::process::exit(0);
    }
    let output = again(TEST, "attempt").output().expect("the test runs again");
    let printed = printed(&output);
    assert!(output.status.success(), "{printed}");
    for (attempt, without_filter) in attempts() {
        assert!(printed.contains(&format!("{attempt}: refused\n")), "{printed}");
        // Nothing else refuses the attempt. No program listens on the port.
        let refused = without_filter.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        assert!(!refused, "{attempt} is refused without the filter");
    }
}

/// Calls itself until the stack ends. The result is used after the call, so that no loop can replace it.
fn recurse(depth: u64) -> u64 {
    if depth == 0 { 0 } else { std::hint::black_box(recurse(std::hint::black_box(depth - 1))) + 1 }
}

/// The service reports a crash as a failure of the reducer if it sees the signal.
#[test]
fn an_abort_and_a_stack_overflow_end_a_confined_process_with_their_signal() {
    const TEST: &str = "an_abort_and_a_stack_overflow_end_a_confined_process_with_their_signal";
    if let Some(action) = action() {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).expect("no core file");
        sandbox::filter_system_calls().expect("a filter");
        if action == "abort" {
            std::process::abort();
        }
        println!("{}", recurse(u64::MAX));
        std::process::exit(0);
    }
    for action in ["abort", "overflow"] {
        let output = again(TEST, action).output().expect("the test runs again");
        assert_eq!(output.status.signal(), Some(Signal::SIGABRT as i32), "{action}: {}", printed(&output));
    }
}

/// Becomes the service, on a kernel without filters: the call that installs one is unknown.
fn serve_without_filters() -> ! {
    let rules = BTreeMap::from([(nix::libc::SYS_seccomp, Vec::new())]);
    let unknown = SeccompAction::Errno(nix::libc::ENOSYS as u32);
    let processor: TargetArch = std::env::consts::ARCH.try_into().expect("a known processor");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, unknown, processor).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("the filter is installed");
    panic!("the service does not start: {}", Command::new(env!("CARGO_BIN_EXE_annals")).exec());
}

#[tokio::test]
async fn a_kernel_without_filters_is_logged_once_at_the_start_and_reducers_work() {
    const TEST: &str = "a_kernel_without_filters_is_logged_once_at_the_start_and_reducers_work";
    const WARNING: &str = "reducer workers run without a filter of system calls";
    if action().is_some() {
        serve_without_filters();
    }
    let database = TestDatabase::create().await;
    let mut command = annals(Some(&database));
    command.env("ANNALS_LOG_LEVEL", "info");
    let filtered = LoggedService::start(command).await;
    assert!(!filtered.text().contains(WARNING), "{}", filtered.text());
    let mut command = again(TEST, "serve");
    command.env_clear().env(ACTION, "serve").stdout(Stdio::null());
    for (name, value) in annals(Some(&database)).get_envs() {
        command.env(name, value.expect("a value"));
    }
    command.env("ANNALS_LOG_LEVEL", "info");
    let unfiltered = LoggedService::start(command).await;
    let source = json!({"language": "javascript", "source": "({ $any: (state) => state })"}).to_string();
    let client = http_client().build().expect("a client");
    for aggregate_type in ["A", "B"] {
        let put = client.put(format!("{}/reducers/{aggregate_type}", unfiltered.base));
        let put = put.header("content-type", "application/json").body(source.clone());
        assert_eq!(put.send().await.expect("a response").status(), 201);
    }
    let text = unfiltered.text();
    let warnings: Vec<&str> = text.lines().filter(|line| line.contains(WARNING)).collect();
    assert_eq!(warnings.len(), 1, "{text}");
    assert!(warnings[0].contains("Function not implemented"), "{text}");
}
