//! Faults that can be planted in the core, for the simulator to show that it would find them.
//!
//! Only a test build has them: elsewhere [`is_planted`] is the constant `false`, and costs nothing.

macro_rules! faults {
    ($($(#[$meta:meta])+ $variant:ident,)+) => {
        /// A mistake that an engineer could make.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault { $($(#[$meta])+ $variant,)+ }

        impl Fault {
            /// Every one: each has to be found.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)+];
        }
    };
}

faults! {
    /// Whatever is answered is taken for an acknowledgement.
    AcknowledgeWithoutAnAnswer,
    /// A 200 counts, whatever its body says.
    AnyBodyAcknowledges,
    /// An event gets another id when it is sent again.
    AnotherIdOnRetry,
    /// A record's checksum is not looked at.
    SkipTheChecksum,
    /// The cursor is written as it comes, also backward.
    CursorGoesBackward,
    /// A forked child keeps the descriptors of its parent open, and with them its locks. Planted in the
    /// simulator's fork: what the core does at a real one is tested by `tests/fork.rs`.
    #[cfg(test)]
    ForkKeepsDescriptors,
    /// Attempts are not written down.
    ForgetAttempts,
    /// A segment is unlinked when it was read, not when it is settled.
    UnlinkTooEarly,
    /// The sender's lock is not looked at.
    TwoSenders,
    /// A refused call is settled without a dead letter.
    SettleWithoutADeadLetter,
    /// The first record of a segment is acknowledged and not written.
    LoseTheFirstOfASegment,
    /// Requests start whenever there is something to send.
    IgnoreTheBudget,
    /// A new sender does not know of the starts of the one before it.
    ForgetTheBudget,
    /// What went unanswered is set aside without a look-up.
    SetAsideWithoutALookup,
    /// What went unanswered a day ago is sent again without a look-up.
    ResendAfterADay,
    /// The time of an attempt is believed, also if the clock was set back since.
    TrustTheClock,
    /// Damaged bytes are passed and not kept.
    SkipTheQuarantine,
    /// A segment is begun whether there is room or not.
    IgnoreTheRoom,
    /// A refusal of everything is taken for that of many customers.
    NeverSystemic,
    /// Two records with one id go into one request.
    OneIdTwice,
    /// A record is accepted before it is synced.
    AcceptUnsynced,
    /// A living owner is taken for a dead one.
    AdoptTheLiving,
    /// The spools of the dead are left alone.
    LeaveTheDead,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault on this thread, or takes it away.
#[cfg(test)]
pub(crate) fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

#[cfg(test)]
pub(crate) fn is_planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

#[cfg(not(test))]
pub(crate) const fn is_planted(_: Fault) -> bool {
    false
}
