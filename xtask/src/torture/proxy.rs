//! Between some of the clients and the server: late bytes, and connections that break at any byte.
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::{SERVER_ADDRESS, clients::Dice, server::TCP_PORT};

pub(super) const PORT: u16 = 3201;

/// Forwards until it is over.
pub(super) fn run(over: &AtomicBool) {
    let listener = TcpListener::bind((SERVER_ADDRESS, PORT)).expect("a free port");
    listener.set_nonblocking(true).expect("an option");
    let mut dice = Dice::new(7);
    while !over.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let Ok(server) = TcpStream::connect((SERVER_ADDRESS, TCP_PORT)) else { continue };
        let _ = client.set_nonblocking(false);
        let (seed, seed_back) = (dice.next(), dice.next());
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { continue };
        thread::spawn(move || forward(client, server, seed));
        thread::spawn(move || forward(server_too, client_too, seed_back));
    }
}

/// Copies one direction, late and in odd pieces, until an end or a break of our own.
fn forward(mut from: TcpStream, mut to: TcpStream, seed: u64) {
    let mut dice = Dice::new(seed);
    let mut left = 200 + dice.below(40_000);
    let mut bytes = [0; 1500];
    let _ = from.set_read_timeout(Some(Duration::from_secs(30)));
    while left > 0 {
        let most = 1 + dice.below(1500).min(left - 1);
        let Ok(read @ 1..) = from.read(&mut bytes[..usize::try_from(most).unwrap_or(1)]) else { break };
        thread::sleep(Duration::from_millis(dice.below(40)));
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
        left = left.saturating_sub(read as u64);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
