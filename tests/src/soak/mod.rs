//! A soak: three hosts in a cluster that change things while everything happens to them that can.
//!
//! # Theory of operation
//! Each round has three parts. *Churn*: a client on each host makes, connects and removes, and keeps a model
//! of what it was answered. *Faults*, meanwhile: processes are killed or stopped, a host is cut off, a disk
//! is full, a clock is wrong, etcd goes away. *Heal*: all faults end, and everything must come to agree: the
//! state of each host is its client's model, no address is there twice, every host knows every network,
//! names and pings find their containers, and when all is removed nothing is left. A seed makes the same
//! choices again; times are the machine's.
//!
//! | file | |
//! |---|---|
//! | [`stage`] | the hosts, their underlay, and etcd |
//! | [`host`] | a switch whose disk is small and whose clock can be set |
//! | [`client`] | changes, and the model of those that were answered |
//! | [`faults`] | what happens |
//! | [`agreement`] | what must hold after it |
//! | [`tally`] [`chance`] | counts; choices |

pub mod agreement;
pub mod chance;
pub mod client;
pub mod faults;
pub mod host;
pub mod stage;
pub mod tally;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vswitch_sys::clock;

use agreement::Agreement;
use chance::Chance;
use client::{Board, Client};
use faults::Fault;
use stage::{Source, Stage};
use tally::Tally;

/// Everything is removed, and what is left is counted, once in so many rounds.
const CLEARED_EVERY: u64 = 4;

/// Soaks for a time, with the `vswitch` command `binary`.
///
/// # Panics
/// When anything does not hold; the panic says what, the logs of the hosts are shown.
pub fn run(binary: &str, source: Source, time: Duration, seed: u64, tally: &Tally) {
    let mut stage = Stage::new(binary, source);
    let mut chance = Chance::new(seed);
    let board = Board::default();
    let mut clients: Vec<Client> = stage
        .hosts
        .iter()
        .map(|host| Client::new(host.number, &host.world, seed + host.number as u64))
        .collect();
    let mut agreement = Agreement::new(&stage, tally);
    let begun = clock::now();
    let mut rounds = 0;
    while clock::now().since(begun) < time {
        rounds += 1;
        tally.count("rounds");
        let stop = AtomicBool::new(false);
        let faults = faults::choose(&mut chance, stage.etcd.is_some());
        eprintln!("round {rounds}, {} s: {faults:?}", clock::now().since(begun).as_secs());
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| client.churn(&board, &stop, tally));
            }
            faults::happen(&mut stage, &faults, &mut chance, tally);
            stop.store(true, Ordering::Relaxed);
        });
        agreement.reach(&stage, &mut clients, &board, tally);
        if rounds % CLEARED_EVERY == 0 {
            agreement.clear(&stage, &mut clients, &board, tally);
        }
    }
    faults::heal(&mut stage, &Fault::ALL);
    agreement.clear(&stage, &mut clients, &board, tally);
}
