//! What keeps calls from being billed, as the sender tells it the other processes: by a number.

use crate::delivery::Trouble;

pub(super) fn code(trouble: Option<Trouble>) -> u8 {
    match trouble {
        None => 0,
        Some(Trouble::KeyRefused { status: 403 }) => 2,
        Some(Trouble::KeyRefused { .. }) => 1,
        Some(Trouble::WrongAddress) => 3,
        Some(Trouble::Unreachable) => 4,
        Some(Trouble::Systemic) => 5,
    }
}

/// What a number says. One that is not known is a newer version's.
pub(super) fn from_code(code: u8) -> Option<Trouble> {
    match code {
        1 => Some(Trouble::KeyRefused { status: 401 }),
        2 => Some(Trouble::KeyRefused { status: 403 }),
        3 => Some(Trouble::WrongAddress),
        4 => Some(Trouble::Unreachable),
        5 => Some(Trouble::Systemic),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_says_what_it_was_made_of() {
        for number in 0..=5 {
            assert_eq!(code(from_code(number)), number);
        }
        assert_eq!(from_code(6), None);
    }
}
