//! A PostgreSQL whose commits wait longer for the disk, to measure a slower disk than that of this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// The source of the library that delays the flush of PostgreSQL's log.
const SOURCE: &str = include_str!("../shim/slow_fdatasync.c");

/// A folder with the programs and the data of a PostgreSQL that preloads the library. It is removed when this value is dropped.
pub struct SlowPostgres {
    folder: tempfile::TempDir,
}

impl SlowPostgres {
    /// Compiles the library with `cc`, which the build of Annals needs, too. `bin` is the folder of the programs.
    pub fn prepare(bin: &Path, delay_us: u64) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("annals-bench-slow-").tempdir()?;
        // PostgreSQL may run as another user.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let library = folder.path().join("slow_fdatasync.so");
        let source = folder.path().join("slow_fdatasync.c");
        std::fs::write(&source, SOURCE)?;
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).args([&library, &source]).output();
        let compiled = compiled.context("cc cannot be started: --commit-delay-us needs a C compiler")?;
        ensure!(compiled.status.success(), "cc has failed: {}", String::from_utf8_lossy(&compiled.stderr));
        let preload = format!("export LD_PRELOAD='{}' SLOW_FDATASYNC_US={delay_us}\n", library.display());
        for (program, settings) in [("postgres", preload.as_str()), ("initdb", "")] {
            let script = format!("#!/bin/sh\n{settings}exec '{}' \"$@\"\n", bin.join(program).display());
            write_program(&folder.path().join(program), &script)?;
        }
        Ok(Self { folder })
    }

    /// Returns the folder of the programs.
    pub fn bin(&self) -> &Path {
        self.folder.path()
    }

    /// Returns a folder for the data, which no other PostgreSQL uses.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

fn write_program(path: &Path, script: &str) -> anyhow::Result<()> {
    std::fs::write(path, script)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn only_postgres_is_delayed_when_it_flushes_data() {
        const DELAY: Duration = Duration::from_millis(300);
        let bin = tempfile::tempdir().expect("a folder");
        let flush =
            "#!/bin/sh\necho \"$SLOW_FDATASYNC_US\"\ndd if=/dev/zero of=\"$1\" count=1 conv=fdatasync 2>/dev/null\n";
        for program in ["postgres", "initdb"] {
            write_program(&bin.path().join(program), flush).expect("a program");
        }
        let slow = SlowPostgres::prepare(bin.path(), DELAY.as_micros() as u64).expect("the library");
        let run = |program: &str| {
            let started = Instant::now();
            let output = Command::new(slow.bin().join(program)).arg(bin.path().join("data")).output().expect("it runs");
            assert!(output.status.success(), "{output:?}");
            (String::from_utf8(output.stdout).expect("text"), started.elapsed())
        };
        let (delay, took) = run("postgres");
        assert_eq!(delay, "300000\n");
        assert!(took >= DELAY, "{took:?}");
        assert_eq!(run("initdb").0, "\n");
    }
}
