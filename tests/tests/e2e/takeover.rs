//! Take-overs: control is killed at any moment, and the next one starts before the kernel is done with the
//! first, as a service manager starts it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use vswitch_sys::clock;
use vswitch_tests::api::request;
use vswitch_tests::world::send_signal;

use super::durability::{Client, Random, get};
use super::world;

const KILLS: usize = 300;
const CLIENTS: usize = 2;
/// The latest a kill comes after the clients have begun, in microseconds.
const KILL_MICROS_MAX: usize = 60_000;
/// The latest that the next control starts after the kill, in microseconds.
const START_MICROS_MAX: usize = 300_000;
/// As much again as this of what is drawn is no time at all.
const AT_ONCE_MICROS: usize = 150_000;
/// The time that the next control has until it answers.
const DEADLINE: Duration = Duration::from_secs(2);

#[test]
fn three_hundred_kills_are_taken_over_from_at_once() {
    let mut world = world();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|number| Client::new(number, &world)).collect();
    let mut random = Random(21);
    for kill in 1..=KILLS {
        let mut micros = |limit| Duration::from_micros(random.below(limit) as u64);
        let after = micros(KILL_MICROS_MAX);
        // One of three starts as soon as the signal is sent.
        let pause = micros(START_MICROS_MAX + AT_ONCE_MICROS)
            .saturating_sub(Duration::from_micros(AT_ONCE_MICROS as u64));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| client.churn(&stop));
            }
            // Random moments to come, not times to wait for something.
            let _moment = crossbeam::channel::after(after).recv();
            send_signal(world.control_pid(), Signal::SIGKILL);
            let _moment = crossbeam::channel::after(pause).recv();
            let socket = world.socket();
            let start = clock::now();
            world.replace(|| {
                let answered =
                    request(&socket, "GET", "/networks", &Value::Null).is_ok_and(|answer| answer.0 == 200);
                let took = clock::now().since(start);
                assert!(took < DEADLINE, "kill {kill}: nobody answers within {DEADLINE:?}");
                answered.then_some(())
            });
            stop.store(true, Ordering::Relaxed);
        });
        let mut networks = get(&world, "/networks");
        // Docker's modes `host` and `none` are listed, too.
        networks.as_array_mut().expect("a list").retain(|network| network["Driver"] == "bridge");
        let sandboxes = get(&world, "/sandboxes");
        clients.iter_mut().for_each(|client| client.check(&networks, &sandboxes));
    }
    assert_eq!(world.restarts(), 0, "the datapath was replaced");
}
