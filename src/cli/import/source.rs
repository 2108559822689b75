//! The source of an import: a file, a pipe or standard input, plain or compressed with gzip.
//!
//! The import reads its lines twice, so everything but a plain file is copied to a temporary file first.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;

const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The byte order marks of UTF-16.
const UTF_16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// Opens a source; `-` is standard input.
pub(super) fn open(path: &Path) -> anyhow::Result<File> {
    let name = path.display().to_string();
    let mut file = if path == Path::new("-") {
        copied(io::stdin().lock()).context("standard input")?
    } else {
        let file = File::open(path).with_context(|| name.clone())?;
        // A pipe can be read once only.
        if file.metadata()?.is_file() { file } else { copied(file).with_context(|| name.clone())? }
    };
    let mut start = [0; 2];
    let read = file.read(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    if read == 2 && UTF_16.contains(&start) {
        bail!("{name} is encoded in UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`");
    }
    if read == 2 && start == GZIP {
        return copied(MultiGzDecoder::new(file)).with_context(|| format!("{name} cannot be decompressed"));
    }
    Ok(file)
}

fn copied(mut source: impl Read) -> anyhow::Result<File> {
    let mut file = tempfile::tempfile().context("no temporary file can be created")?;
    io::copy(&mut source, &mut file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
