//! One function per fuzz target: any bytes, and a panic where a promise is broken. `fuzz/` runs them under a fuzzer,
//! `tests/corpus.rs` on what was found and on what is typical.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "a panic is how a finding is told")]

mod api;
mod configuration;
mod deflate;
mod handshake;
mod jobs;
mod packets;
mod proxies;
mod stream;
mod tokens;

pub use api::bodies;
pub use configuration::configuration;
pub use deflate::deflate;
pub use handshake::handshake;
pub use jobs::jobs;
pub use packets::packets;
pub use proxies::proxies;
pub use stream::frames;
pub use tokens::tokens;

/// A target's function.
pub type Run = fn(&[u8]);

/// Every target: its name, which is that of its corpus, and what it runs.
pub const TARGETS: [(&str, Run); 9] = [
    ("bodies", bodies),
    ("configuration", configuration),
    ("deflate", deflate),
    ("frames", frames),
    ("handshake", handshake),
    ("jobs", jobs),
    ("packets", packets),
    ("proxies", proxies),
    ("tokens", tokens),
];

/// Splits the input: sizes of reads by its first bytes, the first of which says how many; then the stream.
fn cuts(data: &[u8]) -> (Vec<usize>, &[u8]) {
    let Some((&count, rest)) = data.split_first() else { return (Vec::new(), data) };
    let (sizes, stream) = rest.split_at(usize::from(count % 16).min(rest.len()));
    (sizes.iter().map(|size| usize::from(*size) + 1).collect(), stream)
}

/// How much of the stream has arrived after each read; the last is all of it.
fn arrivals(sizes: &[usize], bytes: usize) -> impl Iterator<Item = usize> {
    let ends = sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end)
    });
    ends.take_while(move |end| *end < bytes).chain([bytes]).collect::<Vec<_>>().into_iter()
}
