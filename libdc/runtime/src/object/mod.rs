//! Kernel objects: one file for each kind, reading state, intercept, save and
//! restore, and how it survives.
//!
//! | kind | warm | cold |
//! |---|---|---|
//! | regular file, directory | offset and contents rolled back | reopened by name, the same |
//! | file of /proc or /sys | read on from where it was; opened again if it is about the run | the same |
//! | tty | lives; termios set again | the new command's terminal, termios set |
//! | pipe | lives; input fed again, output not repeated | both ends of our own: remade empty |
//! | asynchronous I/O | made at once: what it has come to is memory | the same |
//! | eventfd | counter set again | made again |
//! | timerfd, timers | armed again | made and armed again |
//! | epoll | made again from the table | the same |
//! | memfd | contents, size and seals rolled back | made again, with all of them |
//! | signalfd, inotify | lives | made again |
//! | socket within the run | lives | made again, with what lay in it |
//! | other socket | lives | bound and listening again; a connection was reset |

pub mod about;
mod adopt;
pub mod aio;
pub mod api;
pub mod attributes;
pub mod buffers;
mod change;
pub mod counts;
pub mod cpu_time;
pub mod deferred_close;
pub mod descriptor;
pub mod device;
pub mod epoll;
pub mod eventfd;
pub mod exec;
pub mod fifo;
pub mod group;
pub mod handle;
pub mod identity;
pub mod inherited_memory;
pub mod inotify;
pub mod input;
pub mod limits;
pub mod lock;
pub mod memfd;
pub mod message;
pub mod openat2;
pub mod other_memory;
pub mod output;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod proc_file;
pub mod process;
pub mod pty;
pub mod pushback;
pub mod record;
pub mod regular;
pub mod repeated;
pub mod root_directory;
pub mod schedule;
pub mod seccomp;
pub mod set_by_others;
pub mod signalfd;
pub mod socket;
pub mod stat;
pub mod strays;
pub mod sync;
pub mod timerfd;
pub mod timers;
pub mod transfer;
pub mod tree;
pub mod tty;
pub mod undo;
mod want;
pub mod witness;
