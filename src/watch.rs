//! How long calls tell how far they are, and how they are ended.
//!
//! All take a watch, a closure that is told what is done and answers whether the call goes on:
//! after [`ControlFlow::Break`] it ends soon and gives the error [`Cancelled`] of its room. What it
//! was writing is not there, and what it had saved goes on later to the same bytes.

use std::ops::ControlFlow;

/// How far a long call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// What is under way; which stages there are stands at the call.
    pub stage: &'static str,
    /// What of several things is worked on, such as a concept's name; empty where there is but one.
    pub subject: &'a str,
    /// Parts of this stage that are done, of all.
    pub done: usize,
    /// All parts of this stage.
    pub of: usize,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(stage: &'static str, done: usize, of: usize) -> Progress<'a> {
        Progress { stage, subject: "", done, of }
    }
}

/// The watch of a call asked it to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// What long calls take: `&mut |at| { ...; ControlFlow::Continue(()) }`.
pub type Watch<'w> = dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'w;

/// What parts of a long call tell of theirs: parts done, and all.
pub(crate) type Parts<'w> = dyn FnMut(usize, usize) -> Result<(), Cancelled> + 'w;

/// A watch that looks away: the call runs to its end.
pub fn unwatched(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Of a part that nobody watches.
pub(crate) fn unwatched_parts(_: usize, _: usize) -> Result<(), Cancelled> {
    Ok(())
}

/// The error that ends a call, where its watch asks for it.
pub(crate) fn heed(asked: ControlFlow<()>) -> Result<(), Cancelled> {
    match asked {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Cancelled),
    }
}
