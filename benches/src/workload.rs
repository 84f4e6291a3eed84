//! The compute programs of the interval sweep, and their inputs.
//!
//! Both come from packages and work for as many units as they are told: frames
//! of video, steps of a script. Nothing is downloaded: the video is drawn here.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use crate::bench::Bench;
use crate::failure::{Doing, Outcome};
use crate::guest;
use crate::hosted::Run;

pub struct Workload {
    pub name: &'static str,
    pub says: &'static str,
    program: PathBuf,
    /// Words of the command; `UNITS` stands for the amount of work.
    words: Vec<String>,
    /// How many of the program's own steps make a unit.
    steps: u32,
}

const UNITS: &str = "UNITS";
const WIDTH: usize = 480;
const HEIGHT: usize = 272;
const FRAMES: u32 = 12;

pub fn workloads(bench: &Bench) -> Outcome<Vec<Workload>> {
    let video = bench.file("video.y4m");
    draw(&video)?;
    Ok(vec![
        encoder(bench, "x264, 1 thread", "1")?,
        encoder(bench, "x264, its threads", "auto")?,
        script(
            bench,
            "python3, trees",
            "python3: binary trees built and dropped beside one that lasts, a heap of 40 MB",
            ("trees.py", guest::TREES_PY),
            2000,
        )?,
        script(
            bench,
            "python3, random writes",
            "python3: writes at random places of a heap of 60 MB",
            ("heap.py", guest::HEAP_PY),
            250,
        )?,
    ])
}

fn script(
    bench: &Bench,
    name: &'static str,
    says: &'static str,
    (file, text): (&str, &str),
    steps: u32,
) -> Outcome<Workload> {
    let script = bench.file(file);
    std::fs::write(&script, text).doing(|| format!("write {}", script.display()))?;
    Ok(Workload {
        name,
        says,
        program: guest::packaged("python3")?,
        words: vec![script.display().to_string(), UNITS.to_owned()],
        steps,
    })
}

fn encoder(bench: &Bench, name: &'static str, threads: &str) -> Outcome<Workload> {
    let input = bench.file("video.y4m");
    let output = bench.file("video.264");
    let words = [
        "--quiet",
        "--no-progress",
        "--threads",
        threads,
        "--preset",
        "slow",
        "--frames",
        UNITS,
        "--output",
    ];
    let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    words.push(output.display().to_string());
    words.push(input.display().to_string());
    Ok(Workload {
        name,
        says: if threads == "1" {
            "x264: video encoder, 1 thread, writing a file"
        } else {
            "x264: video encoder, with the threads it chooses, writing a file"
        },
        program: guest::packaged("x264")?,
        words,
        steps: FRAMES,
    })
}

impl Workload {
    pub fn run(&self, run: &Run<'_>, units: u32) -> Outcome<()> {
        let steps = (units * self.steps).to_string();
        let words: Vec<&str> = self
            .words
            .iter()
            .map(|word| if word == UNITS { &steps } else { word.as_str() })
            .collect();
        run.output(&self.program, &words).map(|_| ())
    }
}

/// Enough frames for the longest run: moving shapes and grain, so that the
/// encoder has something to search for and something to throw away.
fn draw(file: &PathBuf) -> Outcome<()> {
    let doing = || format!("write {}", file.display());
    let mut video = BufWriter::new(std::fs::File::create(file).doing(doing)?);
    writeln!(
        video,
        "YUV4MPEG2 W{WIDTH} H{HEIGHT} F30:1 Ip A1:1 C420mpeg2"
    )
    .doing(doing)?;
    let mut grain = 1u32;
    let mut luma = vec![0u8; WIDTH * HEIGHT];
    for frame in 0..FRAMES_DRAWN {
        for (place, pixel) in luma.iter_mut().enumerate() {
            let (x, y) = (place % WIDTH, place / WIDTH);
            grain = grain.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let waves = ((x + 3 * frame) / 7) ^ ((y + frame) / 5);
            let disc = (x as i64 - (frame * 5 % WIDTH) as i64).pow(2)
                + (y as i64 - HEIGHT as i64 / 2).pow(2)
                < 2500;
            let light = if disc { 200 } else { (waves * 3) as u8 & 0x7f };
            *pixel = light.saturating_add((grain >> 28) as u8) | 16;
        }
        video.write_all(b"FRAME\n").doing(doing)?;
        video.write_all(&luma).doing(doing)?;
        let chroma = (64 + frame % 128) as u8;
        video
            .write_all(&vec![chroma; WIDTH * HEIGHT / 2])
            .doing(doing)?;
    }
    video.flush().doing(doing)
}

const FRAMES_DRAWN: usize = 1500;
