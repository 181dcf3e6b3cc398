//! The targets over the committed seeds, and over inputs that are made from them.

use std::path::Path;

/// A seed or one of its descendants: bits flipped, a cut, a piece of it or of another repeated.
fn mutated(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=input.len());
        match random.u8(..7) {
            0 | 1 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            2 if at < input.len() => input[at] = random.choice(*b"0123456789\n -@").unwrap_or(b'9'),
            3 => input.truncate(at),
            4 => {
                input.drain(at..random.usize(at..=input.len()));
            }
            5 => input.insert(at, random.u8(..)),
            _ => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                let piece = &other[from..random.usize(from..=other.len())];
                input.splice(at..at, piece.iter().copied());
            }
        }
    }
    input
}

/// Runs a target over its seeds and so many inputs that are made from them.
fn run(name: &str, target: fn(&[u8]), mutations: usize) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let mut paths: Vec<_> =
        directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(seeds.len() >= 5, "{}", directory.display());
    for (path, seed) in paths.iter().zip(&seeds) {
        let outcome = std::panic::catch_unwind(|| target(seed));
        assert!(outcome.is_ok(), "{}: see above", path.display());
    }
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..mutations {
        let input = mutated(&seeds, &mut random);
        let outcome = std::panic::catch_unwind(|| target(&input));
        assert!(
            outcome.is_ok(),
            "{name} fails, see above, on {:?}",
            input.escape_ascii().to_string()
        );
    }
}

#[test]
fn answer() {
    run("answer", super::answer, 2_000);
}

#[test]
fn config() {
    run("config", super::config, 2_000);
}

#[test]
fn event() {
    run("event", super::event, 2_000);
}

#[test]
fn retry_after() {
    run("retry_after", super::retry_after, 2_000);
}

#[test]
fn spool() {
    run("spool", super::spool, 2_000);
}
