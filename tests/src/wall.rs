//! The wall clock of a program under test, set at any time while it runs; all its other clocks stay as they are.
//!
//! A small shared object, compiled by the machine's C compiler, is loaded before the program's libraries. Where there is
//! no compiler, or the programs are linked statically, the tests that need this are skipped and say so.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Of a day, and of a year without its leap day.
pub const DAY: Duration = Duration::from_secs(86_400);
pub const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A wall clock that tests set.
pub struct Wall {
    object: PathBuf,
    setting: PathBuf,
}

impl Wall {
    /// A right clock, in files below `dir`; none, with a printed reason, where it cannot be made.
    pub fn new(dir: &Path) -> anyhow::Result<Option<Self>> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/clock_shim.c");
        let wall = Self { object: dir.join("clock.so"), setting: dir.join("clock") };
        std::fs::write(&wall.setting, [0; 16])?;
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&wall.object).arg(source);
        match compile.output() {
            Ok(compiled) if compiled.status.success() => {}
            Ok(compiled) => {
                println!("skipped: cc: {}", String::from_utf8_lossy(&compiled.stderr));
                return Ok(None);
            }
            Err(error) => {
                println!("skipped: no C compiler: {error}");
                return Ok(None);
            }
        }
        let year = Command::new("date").arg("+%Y").envs(wall.environment()).env("TZ", "UTC").output()?;
        let right = String::from_utf8_lossy(&year.stdout).trim().parse::<i64>()?;
        wall.set(-(YEAR.as_secs().cast_signed()) * 2_000)?;
        let year = Command::new("date").arg("+%Y").envs(wall.environment()).env("TZ", "UTC").output()?;
        wall.set(0)?;
        if String::from_utf8_lossy(&year.stdout).trim().parse::<i64>()? >= right {
            println!("skipped: the loader does not preload {}", wall.object.display());
            return Ok(None);
        }
        Ok(Some(wall))
    }

    /// What the program needs in its environment.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("LD_PRELOAD", self.object.clone()), ("TOCSIN_TEST_CLOCK", self.setting.clone())]
    }

    /// Sets the clock so many milliseconds off.
    pub fn set(&self, off_by_ms: i64) -> anyhow::Result<()> {
        self.write(off_by_ms, 0)
    }

    /// Lets it jump to and fro.
    pub fn strobe(&self, off_by_ms: i64, every_ms: i64) -> anyhow::Result<()> {
        self.write(off_by_ms, every_ms)
    }

    /// Sets it to the beginning of 1970, where a host without a battery begins.
    pub fn die(&self) -> anyhow::Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        self.set(-i64::try_from(now.as_millis())?)
    }

    fn write(&self, off_by_ms: i64, every_ms: i64) -> anyhow::Result<()> {
        let file = std::fs::File::options().write(true).open(&self.setting)?;
        let bytes = [off_by_ms.to_ne_bytes(), every_ms.to_ne_bytes()].concat();
        Ok(file.write_all_at(&bytes, 0)?) // In place: the program has it mapped.
    }
}
