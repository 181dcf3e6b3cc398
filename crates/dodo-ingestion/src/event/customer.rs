//! Whose call it is, by a header of its request.

/// The customer whom a header names, of all the values that a request has for it.
///
/// A header that came twice names nobody, nor does one with a comma, which is how some servers write the
/// same: one of the two may be the client's own word, beside that of the gateway. What is not ASCII is
/// nobody's id either.
///
/// ```
/// use dodo_ingestion::customer_in_header;
///
/// assert_eq!(customer_in_header([b" cus_1 ".as_slice()]), Some("cus_1"));
/// assert_eq!(customer_in_header([b"cus_1".as_slice(), b"cus_2"]), None);
/// assert_eq!(customer_in_header([b"cus_1,cus_2".as_slice()]), None);
/// ```
pub fn customer_in_header<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<&'a str> {
    let mut values = values.into_iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let names_one = value.is_ascii() && !value.contains(&b',');
    let customer = str::from_utf8(value).ok().filter(|_| names_one)?.trim();
    Some(customer).filter(|customer| !customer.is_empty())
}
