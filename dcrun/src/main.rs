//! `dcrun`: keeps a program alive through kill -9.
//!
//! This is the keeper, an ordinary single-threaded process. It starts the
//! worker (which becomes the program, with the runtime in its lower half),
//! waits for its death, and starts the next one at the last commit. Everything
//! a commit consists of is the runtime's; everything around it is here:
//! the command line, the run's directory, its image, and the decision what a
//! death means.
//!
//! One rule governs every file: worker and keeper share one descriptor table,
//! so while a worker lives the keeper opens nothing at a number that the
//! program can see.
#![cfg_attr(not(test), no_main)]
// The test harness has a main of its own, so nothing of ours is reached from it.
#![cfg_attr(test, allow(dead_code))]
#![deny(unsafe_code)]

mod addressee;
mod apart;
mod background;
mod boot_block;
mod call_limits;
mod check;
mod check_image;
mod chosen;
mod cli;
mod control;
mod doctor;
mod elf;
mod elf_links;
mod ending;
mod families;
mod fault;
mod foresight;
mod found_images;
mod fruitless;
mod handover;
mod image;
mod image_lock;
mod interrupter;
mod keeper;
mod launch;
mod libraries;
mod limits;
mod machine;
mod memory_limits;
mod message;
mod opener;
mod program;
mod ps;
mod record;
mod relay;
mod remains;
mod removal;
mod reserve;
mod run_directory;
mod runtime_file;
mod seal;
mod service;
mod standard;
mod state_directory;
mod stats;
mod suspend;
mod suspension;
mod terminals;
mod tree;
mod verdict;
mod victims;
mod worker;

use message::OWN_FAULT;

/// The whole program; returns its exit status.
fn run(arguments: Vec<std::ffi::OsString>) -> u8 {
    let outcome = match cli::parse(arguments) {
        Ok(cli::Command::Run(options)) => launch::run(&options),
        Ok(cli::Command::Resume(options)) => background::resume(&options),
        Ok(cli::Command::Suspend { names, all }) => suspend::suspend(&names, all),
        Ok(cli::Command::Service { action }) => service::act(action),
        Ok(cli::Command::Kill { name }) => control::kill(&name),
        Ok(cli::Command::Rm { name, force }) => control::remove(&name, force),
        Ok(cli::Command::Check { trace }) => check::check(&trace),
        Ok(cli::Command::CheckImage { name }) => check_image::check(&name),
        Ok(cli::Command::Ps { json }) => ps::show(json),
        Ok(cli::Command::Stats { name, json }) => stats::show(&name, json),
        Ok(cli::Command::Doctor { json, command }) if command.is_empty() => doctor::show(json),
        Ok(cli::Command::Doctor { json, command }) => foresight::show(&command, json),
        Err(shown) => return shown.show(),
    };
    match outcome {
        Ok(status) => status,
        Err(failure) => {
            message::say(&failure.to_string());
            failure.status()
        }
    }
}

const _: () = assert!(OWN_FAULT == 125);
