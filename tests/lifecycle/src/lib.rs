//! Kill loops with real processes: writers that use the core, and a `dodometer` that bills them.
//!
//! A [`Plan`] says how many writers share a namespace and what is done to them and to the meter. [`run`]
//! carries it out, lets everything settle, and compares three sets of ids in a [`Report`]:
//!
//! *what writers saw accepted ⊆ what is billed ⊆ what writers attempted*, and each id is billed once.
//!
//! A kill can fall between the write of a call and the return of the verb, hence the two inclusions. A
//! writer notes an id before it calls and after the call returned, in files ([`notes`]) that outlive it.
//!
//! The seed chooses who is killed and when; what the processes have done by then is up to the machine.
//! Nothing here knows how the core works, but for where it keeps a namespace's spools.

mod arena;
mod meter;
pub mod notes;
mod plan;
mod process;
mod report;
mod writers;

pub use arena::run;
pub use plan::{Act, Budget, FULL_SPEED_PAUSE_MS, Plan};
pub use report::{Kills, Report};
