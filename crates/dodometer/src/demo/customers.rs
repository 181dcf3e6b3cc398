//! The demo's three customers, each recognised by a key that its requests carry.

use axum::http::HeaderMap;

/// The header that carries a customer's key.
pub(crate) const KEY_HEADER: &str = "x-api-key";

/// Somebody who calls the API.
pub(crate) struct Customer {
    id: &'static str,
    pub(crate) key: &'static str,
    /// How many of nine calls are this customer's.
    share: usize,
}

const CUSTOMERS: [Customer; 3] = [
    Customer { id: "cus_acme", key: "key_acme", share: 5 },
    Customer { id: "cus_globex", key: "key_globex", share: 3 },
    Customer { id: "cus_initech", key: "key_initech", share: 1 },
];

/// Whose request it is, by its headers.
pub(crate) fn of(headers: &HeaderMap) -> Option<&'static str> {
    let key = headers.get(KEY_HEADER)?;
    CUSTOMERS.iter().find(|customer| key == customer.key).map(|customer| customer.id)
}

/// One of the customers, by their shares.
pub(crate) fn any() -> &'static Customer {
    let shares: usize = CUSTOMERS.iter().map(|customer| customer.share).sum();
    let mut chosen = fastrand::usize(..shares);
    for customer in &CUSTOMERS {
        if chosen < customer.share {
            return customer;
        }
        chosen -= customer.share;
    }
    &CUSTOMERS[0]
}
