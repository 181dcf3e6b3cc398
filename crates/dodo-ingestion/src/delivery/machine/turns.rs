//! Whose turn it is.

/// What takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Deliver,
    TellApart,
    Apart,
    Failing,
    Parked,
    Lookup,
}

impl Turn {
    pub(super) const ALL: [Self; 6] =
        [Self::Deliver, Self::TellApart, Self::Apart, Self::Failing, Self::Parked, Self::Lookup];
}

/// Whose turn it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    delivered: bool,
    aside: Turn,
}

impl Default for Turns {
    fn default() -> Self {
        Self { delivered: false, aside: Turn::Lookup }
    }
}

impl Turns {
    pub(super) fn note(&mut self, turn: Turn) {
        self.delivered = turn == Turn::Deliver;
        if !self.delivered {
            self.aside = turn;
        }
    }

    /// Every other request is for what is due; the rest take turns among themselves.
    pub(super) fn in_order(self) -> impl Iterator<Item = Turn> {
        let asides = &Turn::ALL[1..];
        let after = asides.iter().position(|turn| *turn == self.aside).map_or(0, |at| at + 1);
        let rotated = asides[after..].iter().chain(&asides[..after]).copied();
        let (first, last) =
            if self.delivered { (None, Some(Turn::Deliver)) } else { (Some(Turn::Deliver), None) };
        first.into_iter().chain(rotated).chain(last)
    }
}
