//! Whose turn it is.

/// What takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Deliver,
    TellApart,
    Apart,
    Failing,
    FailingApart,
    Parked,
    Lookup,
}

impl Turn {
    pub(super) const ALL: [Self; 7] = [
        Self::Deliver,
        Self::TellApart,
        Self::Apart,
        Self::Failing,
        Self::FailingApart,
        Self::Parked,
        Self::Lookup,
    ];
}

/// So many requests are for something else than what is due while that waits for what they show.
const SEARCHES: u32 = 3;

/// Of what may be forgotten there may be very much: while calls are due that can be sent, one in so many
/// requests looks it up.
const LOOKUP_SHARE: u32 = 10;

/// Whose turn it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    /// How many requests there were since one was for what is due.
    since_delivery: u32,
    since_lookup: u32,
    aside: Turn,
}

impl Default for Turns {
    fn default() -> Self {
        Self { since_delivery: 1, since_lookup: LOOKUP_SHARE, aside: Turn::Lookup }
    }
}

impl Turns {
    pub(super) fn note(&mut self, turn: Turn) {
        if turn == Turn::Deliver {
            self.since_delivery = 0;
        } else {
            self.since_delivery = self.since_delivery.saturating_add(1);
            self.aside = turn;
        }
        self.since_lookup =
            if turn == Turn::Lookup { 0 } else { self.since_lookup.saturating_add(1) };
    }

    /// Whether it is time to look up what may be forgotten, though calls are due.
    pub(super) fn may_look_up(self) -> bool {
        self.since_lookup >= LOOKUP_SHARE - 1
    }

    pub(super) fn looked_up_last(self) -> bool {
        self.since_lookup == 0
    }

    /// Every other request is for what is due, or fewer while a search shows why that fails; the rest take
    /// turns among themselves.
    pub(super) fn in_order(self, searching: bool) -> impl Iterator<Item = Turn> {
        let asides = &Turn::ALL[1..];
        let after = asides.iter().position(|turn| *turn == self.aside).map_or(0, |at| at + 1);
        let rotated = asides[after..].iter().chain(&asides[..after]).copied();
        let delivers = self.since_delivery >= if searching { SEARCHES } else { 1 };
        let (first, last) =
            if delivers { (Some(Turn::Deliver), None) } else { (None, Some(Turn::Deliver)) };
        first.into_iter().chain(rotated).chain(last)
    }
}
