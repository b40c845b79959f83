//! Files about time zones (RFC 8536), for machines that have none.

/// One that is so many minutes east of Greenwich, and says so under this name.
pub fn file(minutes: u16, name: &str) -> Vec<u8> {
    let mut header = b"TZif2".to_vec();
    header.resize(44, 0);
    // One kind of local time, and the length of its name.
    header[39] = 1;
    header[43] = u8::try_from(name.len() + 1).expect("a short name");
    let seconds = i32::from(minutes) * 60;
    let block = [&seconds.to_be_bytes()[..], &[0, 0], name.as_bytes(), &[0]].concat();
    // The rule for everything later counts to the west.
    let rule = format!("\n{name}-{}:{:02}\n", minutes / 60, minutes % 60);
    [&header[..], &block, &header, &block, rule.as_bytes()].concat()
}
