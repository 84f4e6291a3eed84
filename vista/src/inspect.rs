//! A look into an image that changes nothing: header, log, heaps, and what a recovery would do.

use std::fmt::{self, Write};
use std::path::Path;

use rio_core::{At, Rio};
use rio_sim::Image;
use vista_core::{Fault, Summary, VERSION, check, each_block};

use crate::store::map_all;
use crate::{AnyRio, Error, Kind};

/// All that there is to say about an image.
pub struct Report {
    pub path: String,
    pub rio: Kind,
    /// On disk: commits that opening would carry from the redo log to the files.
    pub redo_commits: u64,
    pub summary: Summary,
    pub heaps: Vec<Result<HeapUse, Fault>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct HeapUse {
    pub blocks: usize,
    pub bytes: usize,
}

/// Opens an image for reading, checks it, and walks its heaps.
///
/// What the recovery would undo is not undone: heaps are counted as the crash left them.
pub fn inspect(path: &Path) -> Result<Report, Error> {
    look(path, |rio, summary| report(path, rio, *summary))
}

fn report(path: &Path, rio: &AnyRio, summary: Summary) -> Report {
    let rows = &summary.table.rows[..summary.table.segments as usize];
    let mut heaps = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let mut usage = HeapUse::default();
        let walked = each_block(rio, index + 1, row, |_: At, len| {
            usage.blocks += 1;
            usage.bytes += len;
        });
        heaps.push(walked.map(|()| usage));
    }
    for (index, root) in summary.roots.iter().take(rows.len()).enumerate() {
        let at = At::from_word(*root);
        let window_len = rio.window(at.window()).len;
        if *root != 0 && (at.window() == 0 || at.offset() >= window_len) {
            heaps[index] = Err(Fault::Range {
                at,
                len: 1,
                window_len,
            });
        }
    }
    let path = path.display().to_string();
    Report {
        path,
        rio: rio.kind(),
        redo_commits: rio.commits_in_log(),
        summary,
        heaps,
    }
}

/// Opens an image for reading, checks it, and lets a visitor look at its memory: for what is built
/// above Vista. The memory is as a crash may have left it.
pub fn look<T>(path: &Path, visit: impl FnOnce(&AnyRio, &Summary) -> T) -> Result<T, Error> {
    let image = Image::open(path, false)?;
    let mut rio = AnyRio::open_as(Kind::Tmpfs, image)?;
    map_all(&mut rio).map_err(|error| error.unwrap_or_else(Error::of(path)))?;
    let summary = check(&rio, rio_sim::effective_uid()).map_err(Error::of(path))?;
    Ok(visit(&rio, &summary))
}

impl Report {
    /// The faults that `inspect` did not already stop at.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.heaps.iter().filter_map(|heap| heap.as_ref().err())
    }

    pub fn json(&self) -> String {
        let Report {
            path,
            rio,
            summary: s,
            ..
        } = self;
        let mut out = String::new();
        let _ = write!(
            out,
            "{{\"path\":{},\"rio\":\"{rio}\",\"version\":{VERSION},\"owner\":{},\
             \"log\":{{\"len\":{},\"used\":{}}},\
             \"redo_commits\":{},\"recovery\":{{\"needed\":{},\"ranges\":{},\"bytes\":{},\"mallocs\":{},\"frees\":{}}},\
             \"segments\":[",
            quoted(path),
            s.owner,
            s.log_len,
            s.tail,
            self.redo_commits,
            s.tail > 0,
            s.undo_ranges,
            s.undo_bytes,
            s.undo_mallocs,
            s.undo_frees,
        );
        for (index, heap) in self.heaps.iter().enumerate() {
            let row = &s.table.rows[index];
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(
                out,
                "{comma}{{\"name\":{},\"len\":{},\"max_len\":{},\"address\":{},\"heap_at\":{},\
                 \"root\":\"{}\",",
                quoted(&name(&row.name)),
                row.len,
                row.max_len,
                row.address,
                row.heap_at,
                At::from_word(s.roots[index]),
            );
            let _ = match heap {
                Ok(usage) => {
                    write!(
                        out,
                        "\"blocks\":{},\"block_bytes\":{}}}",
                        usage.blocks, usage.bytes
                    )
                }
                Err(fault) => write!(out, "\"fault\":{}}}", quoted(&fault.to_string())),
            };
        }
        out.push_str("]}");
        out
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            path,
            rio,
            summary: s,
            ..
        } = self;
        writeln!(
            f,
            "{path}: Vista image, version {VERSION}, owner {}, on {rio}",
            s.owner
        )?;
        writeln!(f, "undo log: {} of {} bytes in use", s.tail, s.log_len)?;
        if self.redo_commits > 0 {
            let commits = self.redo_commits;
            writeln!(f, "redo log: {commits} commits to be carried to the files")?;
        }
        match s.tail {
            0 => writeln!(f, "recovery: nothing to undo")?,
            _ => writeln!(
                f,
                "recovery: would put back {} ranges ({} bytes), undo {} mallocs and {} frees",
                s.undo_ranges, s.undo_bytes, s.undo_mallocs, s.undo_frees
            )?,
        }
        for (index, heap) in self.heaps.iter().enumerate() {
            let row = &s.table.rows[index];
            write!(f, "segment {} {:?}: ", index + 1, name(&row.name))?;
            write!(f, "{} bytes of at most {}", row.len, row.max_len)?;
            if row.address != 0 {
                write!(f, ", at {:#x}", row.address)?;
            }
            write!(f, ", root {}", At::from_word(s.roots[index]))?;
            match heap {
                Err(fault) => writeln!(f, ", FAULT: {fault}")?,
                Ok(_) if row.heap_at >= row.max_len => writeln!(f, ", no heap")?,
                Ok(usage) => {
                    writeln!(
                        f,
                        ", heap of {} blocks, {} bytes",
                        usage.blocks, usage.bytes
                    )?;
                }
            }
        }
        Ok(())
    }
}

fn name(bytes: &[u8; 24]) -> String {
    let len = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
