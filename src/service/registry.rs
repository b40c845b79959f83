//! A file for the registry of Windows. Must not know who imports it.

/// Sets the variable `Environment` of the service `service` to the three that name a proxy (`update-and-system.md` 8.1
/// step 6), in the form that `reg import` reads.
pub(super) fn environment(service: &str, proxy: &str) -> Vec<u8> {
    let variables = [
        format!("HTTP_PROXY={proxy}"),
        format!("HTTPS_PROXY={proxy}"),
        "NO_PROXY=localhost,127.0.0.1".to_owned(),
    ];
    // A list of texts, each ended by a zero, and one more at the end; written byte by byte.
    let list: Vec<String> = variables
        .iter()
        .flat_map(|variable| variable.encode_utf16().chain([0]))
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let text = format!(
        "Windows Registry Editor Version 5.00\r\n\r\n\
         [HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\{service}]\r\n\
         \"Environment\"=hex(7):{}\r\n",
        list.join(",")
    );
    let mark = [0xff, 0xfe];
    mark.into_iter()
        .chain(text.encode_utf16().flat_map(u16::to_le_bytes))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_a_list_of_texts_that_ends() {
        let file = environment("reagent", "http://p");
        let units: Vec<u16> = file[2..]
            .chunks(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        let text = String::from_utf16(&units).unwrap();
        assert_eq!(file[..2], [0xff, 0xfe]);
        assert!(
            text.contains("\\Services\\reagent]\r\n\"Environment\"=hex(7):48,00,54,00,54,00,50,00,5f,00")
        );
        assert!(text.ends_with(",31,00,00,00,00,00\r\n"), "{text}");
    }
}
