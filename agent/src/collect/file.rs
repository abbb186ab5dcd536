//! A file of `/proc` or `/sys` that is read again and again: opened once, read from its start at each tick.
//!
//! The kernel makes the text anew for each read from offset 0, so a kept descriptor saves the path walk, which is
//! most of the cost of a small file. If reading fails the file is opened again: a device may have come back.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::source::CollectError;

/// No file of the kernel's that we read is larger; `/proc/stat` of a host with 4,096 interrupts has about 100 KiB.
const FILE_BYTES_MAX: usize = 8 << 20;
/// The first buffer of a table in `/proc`: most fit, so that one read and one end-of-file suffice.
const TABLE_BYTES: usize = 4096;
/// The first buffer of a `/sys` attribute: one number or word.
const ATTRIBUTE_BYTES: usize = 64;

/// A file that is kept open between reads.
#[derive(Debug)]
pub(crate) struct KernelFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
    first: usize,
    /// A short read is the end: attributes are made whole, tables row by row.
    short_is_end: bool,
}

impl KernelFile {
    /// A table of `/proc`. Nothing is opened yet.
    pub(crate) fn table(path: PathBuf) -> Self {
        Self { path, file: None, buffer: Vec::new(), first: TABLE_BYTES, short_is_end: false }
    }

    /// A one-value attribute of `/sys`. Nothing is opened yet.
    pub(crate) fn attribute(path: PathBuf) -> Self {
        Self { first: ATTRIBUTE_BYTES, short_is_end: true, ..Self::table(path) }
    }

    /// The whole text as it is now; bytes that are not UTF-8 are replaced.
    pub(crate) fn read(&mut self) -> Result<Cow<'_, str>, CollectError> {
        let length = self.fetch().map_err(|source| CollectError::Read { path: self.path.clone(), source })?;
        Ok(String::from_utf8_lossy(&self.buffer[..length]))
    }

    /// The open file, for waiting on it.
    pub(crate) fn open(&mut self) -> io::Result<&File> {
        let opened = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        Ok(self.file.insert(opened))
    }

    fn fetch(&mut self) -> io::Result<usize> {
        if self.file.is_some() {
            if let Ok(length) = self.fetch_open() {
                return Ok(length);
            }
            self.file = None; // The device behind it may have gone and come back.
        }
        self.fetch_open()
    }

    fn fetch_open(&mut self) -> io::Result<usize> {
        if self.buffer.is_empty() {
            self.buffer.resize(self.first, 0);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let short_is_end = self.short_is_end;
        let read = self.open().and_then(|file| read_whole(file, &mut buffer, short_is_end));
        self.buffer = buffer;
        read
    }
}

fn read_whole(file: &File, buffer: &mut Vec<u8>, short_is_end: bool) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match file.read_at(&mut buffer[length..], length as u64) {
            Ok(0) => return Ok(length),
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if short_is_end && length < buffer.len() {
            return Ok(length);
        }
        if length == buffer.len() {
            if length >= FILE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any file of its kind"));
            }
            buffer.resize(length * 2, 0);
        }
    }
}

/// The text of a file read once, without the line's end.
pub(crate) fn read_once(path: &Path) -> Result<String, CollectError> {
    let mut file = KernelFile::table(path.to_owned());
    Ok(file.read()?.trim_end().to_owned())
}

/// The names in a directory, sorted; at most `max`.
pub(crate) fn names_in(path: &Path, max: usize) -> Result<Vec<String>, CollectError> {
    let failed = |source| CollectError::Read { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)?.take(max) {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_from_its_start_each_time_whatever_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut files = [KernelFile::attribute(path.clone()), KernelFile::table(path.clone())];
        assert!(matches!(files[0].read(), Err(CollectError::Read { .. })), "not there yet");
        for text in ["one".to_owned(), "2".repeat(10_000), String::new(), "x".repeat(ATTRIBUTE_BYTES)] {
            std::fs::write(&path, &text).unwrap();
            for file in &mut files {
                assert_eq!(file.read().unwrap(), text);
            }
        }
        assert_eq!(names_in(folder.path(), 10).unwrap(), ["file"]);
    }
}
