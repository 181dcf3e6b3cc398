//! Arguments that clap takes and that are wrong all the same.

use std::fmt;

use dodometer_server::ErrorKind;

/// Why the arguments are wrong.
#[derive(Debug)]
pub(crate) struct WrongArguments(pub(crate) String);

impl fmt::Display for WrongArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongArguments {}

/// Whether the arguments are why something failed.
pub(crate) fn is_of_arguments(error: &anyhow::Error) -> bool {
    error.is::<WrongArguments>()
        || error
            .downcast_ref::<dodometer_server::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::Configuration)
}
