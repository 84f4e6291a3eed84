//! The protocol in a world where everything that can go wrong does, in every order.

#[path = "chaos.rs"]
mod chaos;
#[path = "mortal.rs"]
mod mortal;
#[path = "party.rs"]
mod party;
#[path = "search.rs"]
mod search;
mod words;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use chaos::{Chaos, Weather};
use party::{Party, Role};
use search::{Budget, Findings, World, search};
use vistagrams::{Plant, Settings};

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

/// Small tables: four requests at once, bodies of one size class, so that an image is one span.
fn role(port: u16, servers: &[u16]) -> Role {
    let mut settings = Settings::at(address(port));
    settings.window = 4;
    Role {
        settings,
        servers: servers.iter().map(|&port| address(port)).collect(),
        requests: 1,
        at_once: 1,
        body_len: 96,
        two_steps: false,
        spans: 1,
    }
}

const CLIENT: u16 = 11;
const SERVER: u16 = 12;

fn pair(change: impl Fn(&mut Role), budget: Budget) -> World {
    let mut client = role(CLIENT, &[SERVER]);
    let mut server = role(SERVER, &[]);
    change(&mut client);
    change(&mut server);
    World {
        parties: vec![
            Party::new(client, CLIENT as u8),
            Party::new(server, SERVER as u8),
        ],
        network: BTreeSet::new(),
        budget,
    }
}

fn budget(losses: u8, repeats: u8, deaths: u8, aborts: u8, forgets: u8) -> Budget {
    Budget {
        losses,
        repeats,
        deaths,
        aborts,
        forgets,
    }
}

fn one(_: &mut Role) {}

fn two(role: &mut Role) {
    role.requests = 2;
}

fn two_at_once(role: &mut Role) {
    (role.requests, role.at_once) = (2, 2);
}

fn in_two_steps(role: &mut Role) {
    role.two_steps = true;
}

fn run(name: &str, change: fn(&mut Role), budget: Budget) -> Findings {
    let begun = Instant::now();
    let found = search(pair(change, budget), 10_000_000);
    println!(
        "{name}, {budget:?}: {found:?}, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    found
}

/// A row of what was searched: states and transitions are asserted, so that a check that has become
/// vacuous fails; so are the stores after which somebody died.
type Row = (&'static str, fn(&mut Role), Budget, [usize; 3]);

fn assert_exactly_once(rows: &[Row]) {
    let mut others = Vec::new();
    for (name, change, budget, pinned) in rows {
        let found = run(name, *change, *budget);
        assert_eq!(found.broken, None, "{name}: {found:?}");
        assert!(found.goals > 0, "{name}: the goal was never reached");
        let counted = [found.states, found.transitions, found.death_points];
        if counted != *pinned {
            others.push(format!("{name}, {budget:?}: {counted:?}, not {pinned:?}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

#[test]
fn every_death_loss_and_repetition_leaves_each_request_executed_once() {
    assert_exactly_once(&[
        ("one request", one, budget(0, 0, 0, 0, 0), [63, 108, 0]),
        ("one request", one, budget(2, 1, 0, 0, 0), [2921, 8711, 0]),
        (
            "one request",
            one,
            budget(2, 1, 1, 0, 0),
            [21_681, 69_939, 1319],
        ),
        (
            "one request",
            one,
            budget(1, 0, 2, 0, 0),
            [5974, 14_438, 2239],
        ),
        (
            "one request",
            one,
            budget(1, 1, 0, 1, 2),
            [19_100, 77_882, 0],
        ),
        (
            "two requests",
            two,
            budget(2, 1, 1, 0, 0),
            [111_382, 358_251, 2413],
        ),
        (
            "two at once",
            two_at_once,
            budget(1, 0, 1, 0, 0),
            [132_735, 409_101, 10_302],
        ),
        (
            "in two steps",
            in_two_steps,
            budget(2, 1, 1, 0, 0),
            [25_029, 80_714, 1396],
        ),
    ]);
}

/// Minutes, and gigabytes: `scripts/search-grams`.
#[test]
#[ignore = "minutes: scripts/search-grams"]
fn the_same_with_wider_bounds() {
    assert_exactly_once(&[
        (
            "one request",
            one,
            budget(2, 1, 2, 0, 0),
            [97_269, 326_081, 4627],
        ),
        (
            "one request",
            one,
            budget(1, 1, 1, 1, 2),
            [146_940, 667_563, 2266],
        ),
        (
            "two requests",
            two,
            budget(2, 1, 1, 1, 1),
            [632_621, 2_673_433, 4835],
        ),
        (
            "two requests",
            two,
            budget(2, 1, 2, 0, 0),
            [738_614, 2_508_175, 14_789],
        ),
        (
            "two at once",
            two_at_once,
            budget(2, 1, 0, 0, 0),
            [247_558, 1_050_359, 0],
        ),
        (
            "two at once",
            two_at_once,
            budget(1, 1, 1, 0, 0),
            [1_432_118, 6_102_419, 17_007],
        ),
        (
            "in two steps",
            in_two_steps,
            budget(2, 1, 2, 0, 0),
            [119_860, 404_093, 5698],
        ),
        (
            "in two steps",
            in_two_steps,
            budget(1, 1, 1, 1, 1),
            [81_966, 334_145, 2225],
        ),
    ]);
}

#[test]
fn each_planted_fault_is_found() {
    let stuck = "no way to the goal";
    type Case = (Plant, fn(&mut Role), Budget, &'static str);
    let cases: [Case; 10] = [
        (
            Plant::RequestLeavesEarly,
            two,
            budget(0, 0, 1, 0, 0),
            "never sent",
        ),
        (
            Plant::ResponseLeavesEarly,
            one,
            budget(0, 0, 1, 0, 0),
            "not executed",
        ),
        (Plant::AcknowledgedEarly, one, budget(0, 0, 0, 1, 0), stuck),
        (
            Plant::ResponsesForgotten,
            one,
            budget(1, 0, 1, 0, 0),
            "executed 2 times",
        ),
        (Plant::RequestsForgotten, one, budget(0, 0, 1, 0, 0), stuck),
        (
            Plant::FloorIgnored,
            two,
            budget(0, 1, 0, 0, 0),
            "executed 2 times",
        ),
        (Plant::AbortLosesRequest, one, budget(0, 0, 0, 1, 0), stuck),
        (Plant::AnsweredOnce, one, budget(1, 0, 0, 0, 0), stuck),
        (Plant::FreedWhenSent, one, budget(1, 0, 0, 0, 0), stuck),
        (
            Plant::GrantOutlivesClient,
            one,
            budget(0, 1, 0, 0, 2),
            "executed 2 times",
        ),
    ];
    for (plant, change, budget, shows_as) in cases {
        let mut world = pair(change, budget);
        for party in &mut world.parties {
            let mut role = (*party.role).clone();
            role.settings.plant = Some(plant);
            *party = Party::new(role, party.address().port() as u8);
        }
        let found = search(world, 1_000_000);
        let broken = found.broken.clone().unwrap_or_default();
        assert!(
            broken.contains(shows_as),
            "{plant:?} was not found: {found:?}"
        );
        // Without the fault the same bounds show nothing.
        assert_eq!(run("without it", change, budget).broken, None);
        println!("{plant:?}: {broken}, {} states", found.states);
    }
    let planted: BTreeSet<Plant> = cases.iter().map(|case| case.0).collect();
    assert_eq!(planted.len(), Plant::ALL.len());
}

/// Three clients with two requests under way each, two servers; bodies of one or many fragments.
fn crowd(body_len: usize, requests: u64, two_steps: bool, key: Option<[u8; 16]>) -> Vec<Role> {
    let servers = [31, 32];
    let clients = [11, 12, 13];
    let make = |port: u16, asks: &[u16]| {
        let mut role = role(port, asks);
        role.settings.window = 4;
        role.settings.key = key;
        role.settings.datagram = 512;
        (role.requests, role.at_once) = (requests, 2);
        (role.body_len, role.two_steps) = (body_len, two_steps);
        role.spans = if body_len > 96 { 24 } else { 1 };
        role
    };
    let servers_first = servers.iter().map(|&port| make(port, &[]));
    servers_first
        .chain(clients.iter().map(|&port| make(port, &servers)))
        .collect()
}

const STORM: Weather = Weather {
    lost: 80,
    doubled: 60,
    corrupted: 40,
    late: 30,
    dies: 60,
    aborts: 60,
    moves: 0,
};

fn weather_all(name: &str, roles: impl Fn() -> Vec<Role>, weather: Weather, seeds: u64) {
    let begun = Instant::now();
    let mut sum = chaos::Tally::default();
    for seed in 0..seeds {
        let mut chaos = Chaos::new(roles(), weather, seed);
        if let Err(wrong) = chaos.run() {
            panic!("{name}, seed {seed}: {wrong}");
        }
        let tally = &chaos.tally;
        sum.requests += tally.requests;
        sum.deaths += tally.deaths;
        sum.aborts += tally.aborts;
        sum.moves += tally.moves;
        sum.lost += tally.lost;
        sum.doubled += tally.doubled;
        sum.corrupted += tally.corrupted;
        sum.packets += tally.packets;
    }
    println!("{name}: {sum:?}, {:.1} s", begun.elapsed().as_secs_f64());
    assert!(
        sum.lost > 0 && sum.doubled > 0 && sum.corrupted > 0 && sum.deaths > 0,
        "{sum:?}"
    );
    assert!(weather.moves == 0 || sum.moves > 0, "{sum:?}");
}

#[test]
fn a_storm_over_small_messages() {
    weather_all("small", || crowd(96, 30, false, None), STORM, 20);
    weather_all("in two steps", || crowd(96, 30, true, None), STORM, 20);
    weather_all("keyed", || crowd(96, 30, false, Some([5; 16])), STORM, 10);
}

#[test]
fn a_storm_over_messages_of_many_fragments() {
    // Deaths are rarer, or no message would ever be whole.
    let weather = Weather { dies: 15, ..STORM };
    weather_all("fragments", || crowd(20_000, 6, false, None), weather, 4);
}

#[test]
fn servers_that_come_back_elsewhere() {
    let moving = Weather {
        moves: 500,
        ..STORM
    };
    weather_all("moving", || crowd(96, 30, false, None), moving, 20);
}
