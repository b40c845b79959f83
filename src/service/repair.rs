//! The script that Windows runs when it starts (`update-and-system.md` 8.1 step 5): a power cut between the two renames
//! of an update leaves no binary of the service's name. Must not know who writes it.

/// File name below the agent directory.
pub(super) const FILE: &str = "repair.cmd";

/// Its text, for the service `service`. It works in the directory in which it lies.
pub(super) fn text(service: &str) -> String {
    let lines = [
        "@echo off",
        "rem Written by reagent service install.",
        "rem An update renames reagent.exe and puts another one in its place. Where the power was cut in between,",
        "rem the version before gets its name back, or else the newest one that was downloaded.",
        "setlocal",
        "cd /d \"%~dp0\"",
        "if not exist repair.cmd exit /b 1",
        "if exist reagent.exe goto start",
        "if not exist reagent-prev.exe goto newest",
        "ren reagent-prev.exe reagent.exe",
        "goto start",
        ":newest",
        "for /f \"delims=\" %%f in ('dir /b /a-d /o-d reagent-v*.exe') do if not exist reagent.exe ren \"%%f\" reagent.exe",
        ":start",
    ];
    let mut text: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
    text.push_str(&format!("sc start {service}\r\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_ends_as_windows_wants_it() {
        let text = text("reagent");
        assert!(text.ends_with("sc start reagent\r\n"));
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
        assert!(text.is_ascii());
    }
}
