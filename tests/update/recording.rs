//! What an agent does to its directory, recorded from its system calls (strace), and what a disk may hold when the power
//! goes after any of these steps: everything (the process was killed), only what was synced, or names without the
//! content that was not. What others do there meanwhile (the manager script) is added by them.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What changes a disk.
const CALLS: &str = "trace=openat,write,fchmod,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,ftruncate,\
                     symlink,symlinkat,utimensat";
/// Longer than any state that is written.
const SHOWN: &str = "65536";

/// One change, in the words of the system.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create(String),
    Truncate(String),
    Write(String, Vec<u8>),
    Mode(String, bool),
    Sync(String),
    Rename(String, String),
    Unlink(String),
    /// The name of a link, and its target.
    Link(String, String),
    Time(String, SystemTime),
}

/// A file in one state of the disk.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) content: Arc<Vec<u8>>,
    pub(crate) executable: bool,
    /// When it was changed, if somebody said so.
    pub(crate) time: Option<SystemTime>,
    /// A link, and where it leads.
    pub(crate) link: Option<String>,
}

/// What a disk keeps of a file besides its name.
#[derive(Clone, Debug, Default)]
struct Matter {
    content: Arc<Vec<u8>>,
    executable: bool,
    time: Option<SystemTime>,
    link: Option<String>,
}

/// What is on the disk when the power comes back.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    /// For people: the step that was the last one, and what survived.
    pub(crate) after: String,
    /// Its number.
    pub(crate) step: usize,
    pub(crate) files: Vec<File>,
}

/// When something was done, in seconds since 1970, as strace writes it.
pub(crate) type Moment = f64;

pub(crate) fn now() -> Moment {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

pub(crate) struct Recording {
    before: Vec<File>,
    steps: Vec<Step>,
}

impl Recording {
    /// The same program with its arguments and environment, recorded.
    pub(crate) fn command(trace: &Path, program: &Command) -> Command {
        let mut command = Command::new("strace");
        command
            .args(["-ff", "-ttt", "-y", "-s", SHOWN, "--seccomp-bpf", "-o"])
            .arg(trace.join("t"))
            .args(["-e", CALLS])
            .arg(program.get_program())
            .args(program.get_args())
            .envs(
                program
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
        command
    }

    /// Reads what happened below `directory`, in which `before` was, and was on disk. Downloads are parts of
    /// `binaries`; others did `besides`.
    pub(crate) fn read(
        trace: &Path,
        directory: &Path,
        before: Vec<File>,
        binaries: &[&[u8]],
        besides: Vec<(Moment, Step)>,
    ) -> Recording {
        enum Line {
            Call(String),
            Step(Step),
        }
        let mut lines: Vec<(Moment, Line)> = besides
            .into_iter()
            .map(|(moment, step)| (moment, Line::Step(step)))
            .collect();
        for entry in std::fs::read_dir(trace).unwrap() {
            let content = std::fs::read(entry.unwrap().path()).unwrap();
            for line in String::from_utf8_lossy(&content).lines() {
                let Some((time, call)) = line.split_once(' ') else {
                    continue;
                };
                lines.push((time.parse().unwrap_or(0.0), Line::Call(call.to_owned())));
            }
        }
        lines.sort_by(|one, other| one.0.total_cmp(&other.0));
        let part = |binary: &&[u8]| {
            let name = format!("downloads/{}.part", testkit::release::digest(binary));
            (name, binary.to_vec())
        };
        let mut reader = Reader {
            root: format!("{}/", directory.display()),
            parts: binaries.iter().map(part).collect(),
            lengths: before
                .iter()
                .map(|file| (file.name.clone(), file.content.len()))
                .collect(),
            steps: Vec::new(),
        };
        for (_, line) in lines {
            match line {
                Line::Call(call) => reader.read(&call),
                Line::Step(step) => reader.steps.push(step),
            }
        }
        Recording {
            before,
            steps: reader.steps,
        }
    }

    /// The number of the first step that writes `text` to the file `name`.
    pub(crate) fn first_write(&self, name: &str, text: &str) -> usize {
        let fits = |step: &Step| match step {
            Step::Write(file, content) => {
                file.contains(name) && String::from_utf8_lossy(content).contains(text)
            }
            _ => false,
        };
        self.steps.iter().position(fits).unwrap()
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Every different state that the disk may be in after some step.
    pub(crate) fn cuts(&self) -> Vec<Cut> {
        let mut disk = Disk::holding(&self.before);
        let mut known = HashSet::new();
        let mut cuts = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            disk.apply(step);
            let in_the_middle = matches!((step, self.steps.get(number + 1)),
                (Step::Write(one, _), Some(Step::Write(other, _))) if one == other);
            // A download is some hundred writes; each sixtieth is as good as all.
            if in_the_middle && number % 60 != 0 {
                continue;
            }
            for (what, files) in disk.states() {
                let key: Vec<_> = files
                    .iter()
                    .map(|file| {
                        let small = file.content.len() < 100_000;
                        (
                            file.name.clone(),
                            file.content.len(),
                            small.then(|| file.content.clone()),
                            file.executable,
                            file.time,
                            file.link.clone(),
                        )
                    })
                    .collect();
                if known.insert(key) {
                    cuts.push(Cut {
                        after: format!("step {number}, {what} survives: {}", step.name()),
                        step: number,
                        files,
                    });
                }
            }
        }
        cuts
    }
}

impl Step {
    fn name(&self) -> String {
        match self {
            Step::Create(name) => format!("create {name}"),
            Step::Truncate(name) => format!("truncate {name}"),
            Step::Write(name, content) => format!("write {} bytes to {name}", content.len()),
            Step::Mode(name, executable) => format!("make {name} executable: {executable}"),
            Step::Sync(name) => format!("sync {name:?}"),
            Step::Rename(from, to) => format!("rename {from} to {to}"),
            Step::Unlink(name) => format!("unlink {name}"),
            Step::Link(name, target) => format!("link {name} to {target}"),
            Step::Time(name, _) => format!("set the time of {name}"),
        }
    }
}

struct Reader {
    root: String,
    /// What downloads are the beginnings of, by name.
    parts: BTreeMap<String, Vec<u8>>,
    /// Of every file so far, for the downloads.
    lengths: BTreeMap<String, usize>,
    steps: Vec<Step>,
}

impl Reader {
    fn read(&mut self, call: &str) {
        let Some((name, rest)) = call.split_once('(') else {
            return;
        };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else {
            return;
        };
        if result.starts_with('-') || result.starts_with('?') {
            return;
        }
        match name {
            "openat" => {
                let Some(path) = self.own(&quoted(arguments)[0]) else {
                    return;
                };
                if arguments.contains("O_CREAT") && !self.lengths.contains_key(&path) {
                    self.lengths.insert(path.clone(), 0);
                    self.steps.push(Step::Create(path));
                } else if arguments.contains("O_TRUNC") {
                    self.lengths.insert(path.clone(), 0);
                    self.steps.push(Step::Truncate(path));
                }
            }
            "ftruncate" => {
                let Some(path) = self.described(arguments) else {
                    return;
                };
                assert!(arguments.contains(", 0)"), "only emptying is understood: {call}");
                self.lengths.insert(path.clone(), 0);
                self.steps.push(Step::Truncate(path));
            }
            "write" => {
                let Some(path) = self.described(arguments) else {
                    return;
                };
                let count: usize = result.split_whitespace().next().unwrap().parse().unwrap();
                let start = self.lengths.get(&path).copied().unwrap();
                let content = match self.parts.get(&path) {
                    Some(whole) => whole[start..start + count].to_vec(),
                    None => quoted(arguments)[0].clone().into_bytes(),
                };
                assert_eq!(content.len(), count, "{path}");
                self.lengths.insert(path.clone(), start + count);
                self.steps.push(Step::Write(path, content));
            }
            "fchmod" => {
                let Some(path) = self.described(arguments) else {
                    return;
                };
                self.steps.push(Step::Mode(path, arguments.contains("0755")));
            }
            "fsync" | "fdatasync" => {
                let Some(path) = self.described(arguments) else {
                    return;
                };
                self.steps.push(Step::Sync(path));
            }
            "rename" | "renameat" | "renameat2" => {
                let paths = quoted(arguments);
                let (Some(from), Some(to)) = (self.own(&paths[0]), self.own(&paths[1])) else {
                    return;
                };
                if let Some(length) = self.lengths.remove(&from) {
                    self.lengths.insert(to.clone(), length);
                }
                self.steps.push(Step::Rename(from, to));
            }
            "unlink" | "unlinkat" => {
                let Some(path) = self.own(&quoted(arguments)[0]) else {
                    return;
                };
                self.lengths.remove(&path);
                self.steps.push(Step::Unlink(path));
            }
            "symlink" | "symlinkat" => {
                let paths = quoted(arguments);
                let Some(path) = self.own(&paths[1]) else {
                    return;
                };
                self.steps.push(Step::Link(path, paths[0].clone()));
            }
            "utimensat" => {
                let Some(path) = self.described(arguments) else {
                    return;
                };
                self.steps.push(Step::Time(path, modified(arguments)));
            }
            _ => {}
        }
    }

    /// The path below the directory, `""` for itself.
    fn own(&self, path: &str) -> Option<String> {
        if path == self.root.trim_end_matches('/') {
            return Some(String::new());
        }
        path.strip_prefix(&self.root).map(str::to_owned)
    }

    /// The file of the descriptor that comes first.
    fn described(&self, arguments: &str) -> Option<String> {
        let (_, rest) = arguments.split_once('<')?;
        self.own(rest.split_once('>')?.0)
    }
}

/// The second of the two times, which is that of the content.
fn modified(arguments: &str) -> SystemTime {
    let number = |name: &str| {
        let (_, rest) = arguments.rsplit_once(name).unwrap();
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
        rest[..end].parse().unwrap()
    };
    UNIX_EPOCH + Duration::from_secs(number("tv_sec=")) + Duration::from_nanos(number("tv_nsec="))
}

/// The texts in an argument list, without their escapes.
fn quoted(arguments: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut characters = arguments.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '"' {
            continue;
        }
        let mut text = String::new();
        while let Some(character) = characters.next() {
            match character {
                '"' => break,
                '\\' => text.push(match characters.next().unwrap() {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                }),
                other => text.push(other),
            }
        }
        texts.push(text);
    }
    texts
}

/// A file, whatever its names.
#[derive(Clone, Debug, Default)]
struct Inode {
    now: Matter,
    synced: Matter,
}

#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
}

impl Disk {
    fn holding(files: &[File]) -> Disk {
        let mut disk = Disk::default();
        for file in files {
            let matter = Matter {
                content: file.content.clone(),
                executable: file.executable,
                time: file.time,
                link: file.link.clone(),
            };
            disk.names.insert(file.name.clone(), disk.inodes.len());
            disk.inodes.push(Inode {
                now: matter.clone(),
                synced: matter,
            });
        }
        disk.durable.clone_from(&disk.names);
        disk
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(name) => {
                self.names.insert(name.clone(), self.inodes.len());
                self.inodes.push(Inode::default());
            }
            Step::Truncate(name) => self.inode(name).now.content = Arc::default(),
            Step::Write(name, more) => {
                Arc::make_mut(&mut self.inode(name).now.content).extend_from_slice(more);
            }
            Step::Mode(name, executable) => self.inode(name).now.executable = *executable,
            Step::Time(name, time) => self.inode(name).now.time = Some(*time),
            Step::Link(name, target) => {
                // A link is its name: it cannot be synced by itself and is never there without its target.
                let matter = Matter {
                    link: Some(target.clone()),
                    ..Matter::default()
                };
                self.names.insert(name.clone(), self.inodes.len());
                self.inodes.push(Inode {
                    now: matter.clone(),
                    synced: matter,
                });
            }
            Step::Sync(name) => match self.names.get(name) {
                Some(inode) => {
                    let inode = &mut self.inodes[*inode];
                    inode.synced = inode.now.clone();
                }
                None => self.sync_directory(name),
            },
            Step::Rename(from, to) => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                }
            }
            Step::Unlink(name) => {
                self.names.remove(name);
            }
        }
    }

    fn inode(&mut self, name: &str) -> &mut Inode {
        &mut self.inodes[self.names[name]]
    }

    fn sync_directory(&mut self, directory: &str) {
        let inside = |name: &String| {
            let parent = Path::new(name).parent().unwrap();
            parent == Path::new(directory)
        };
        self.durable.retain(|name, _| !inside(name));
        let now = self.names.iter().filter(|(name, _)| inside(name));
        self.durable
            .extend(now.map(|(name, inode)| (name.clone(), *inode)));
    }

    fn states(&self) -> [(&'static str, Vec<File>); 3] {
        let all = |names: &BTreeMap<String, usize>, synced: bool| {
            let file = |(name, inode): (&String, &usize)| {
                let inode = &self.inodes[*inode];
                let matter = if synced { &inode.synced } else { &inode.now };
                File {
                    name: name.clone(),
                    content: matter.content.clone(),
                    executable: matter.executable,
                    time: matter.time,
                    link: matter.link.clone(),
                }
            };
            names.iter().map(file).collect()
        };
        [
            ("everything", all(&self.names, false)),
            ("what was synced", all(&self.durable, true)),
            ("every name but only synced content", all(&self.names, true)),
        ]
    }
}
