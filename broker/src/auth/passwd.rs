//! `forebay passwd`: writes password files, with the options that mosquitto's tool has.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::password::{HashKind, PasswordHash};
use crate::cli;

/// The longest user name, as CONNECT has it.
const USER_BYTES_MAX: usize = 65_535;

/// Carries the command out.
///
/// # Errors
/// What is wrong, for people.
pub fn run(options: &cli::Passwd) -> Result<(), String> {
    let path = &options.file;
    if options.update {
        return update(path, options);
    }
    let user = options.user.as_deref().ok_or("whose password is it? Name a user behind the file")?;
    check_user(user)?;
    let mut lines = match (options.create, options.delete) {
        (true, _) => Vec::new(),
        (false, _) => read(path)?.unwrap_or_default(),
    };
    let known = lines.iter().position(|line| user_of(line) == Some(user));
    if options.delete {
        let at = known.ok_or_else(|| format!("{} has no user `{user}`", path.display()))?;
        lines.remove(at);
        return write(path, &lines);
    }
    let password = match (&options.password, options.batch) {
        (Some(password), true) => Zeroizing::new(password.clone()),
        (None, true) => return Err("with -b, the password stands behind the user".to_owned()),
        (Some(_), false) => {
            return Err("a password on the command line can be seen by others on this machine; \
                say -b if that does not matter, or leave it out and be asked"
                .to_owned());
        }
        (None, false) => ask(user)?,
    };
    let line = format!("{user}:{}", hash(options, password.as_bytes())?);
    match known {
        Some(at) => lines[at] = line,
        None => lines.push(line),
    }
    write(path, &lines)
}

/// Hashes the passwords that stand in the file as they are.
fn update(path: &Path, options: &cli::Passwd) -> Result<(), String> {
    let mut lines = read(path)?.ok_or_else(|| format!("there is no file {}", path.display()))?;
    for line in &mut lines {
        let Some((user, password)) = line.split_once(':') else { continue };
        if line.starts_with('#') || PasswordHash::parse(password).is_ok() {
            continue;
        }
        let updated = format!("{user}:{}", hash(options, password.as_bytes())?);
        *line = updated;
    }
    write(path, &lines)
}

fn hash(options: &cli::Passwd, password: &[u8]) -> Result<PasswordHash, String> {
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    PasswordHash::make(options.hash, options.iterations, password)
}

fn check_user(user: &str) -> Result<(), String> {
    if user.is_empty() || user.len() > USER_BYTES_MAX || user.starts_with('#') {
        return Err(format!("a user name has 1 to {USER_BYTES_MAX} bytes and does not begin with #"));
    }
    match user.contains(|c: char| c == ':' || c.is_control()) {
        true => {
            Err("a user name may hold no colon and no control characters: lines are `user:hash`".to_owned())
        }
        false => Ok(()),
    }
}

fn user_of(line: &str) -> Option<&str> {
    if line.starts_with('#') { None } else { line.split_once(':').map(|(user, _)| user) }
}

/// Asks twice, without showing what is typed; without a terminal, takes the first line of standard input.
fn ask(user: &str) -> Result<Zeroizing<String>, String> {
    let fail = |error: io::Error| format!("no password could be read: {error}");
    if !io::stdin().is_terminal() {
        let mut line = Zeroizing::new(String::new());
        io::stdin().read_line(&mut line).map_err(fail)?;
        return Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()));
    }
    let first = Zeroizing::new(rpassword::prompt_password(format!("Password of {user}: ")).map_err(fail)?);
    let again = Zeroizing::new(rpassword::prompt_password("The same again: ").map_err(fail)?);
    match first == again {
        true => Ok(first),
        false => Err("the two are not the same; nothing was changed".to_owned()),
    }
}

/// The lines of the file; nothing when there is none.
fn read(path: &Path) -> Result<Option<Vec<String>>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.lines().map(str::to_owned).collect())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Writes the file as a whole, for its owner's eyes only: a broker that reads it meanwhile sees the old or the new one.
fn write(path: &Path, lines: &[String]) -> Result<(), String> {
    let fail = |error: io::Error| format!("{} cannot be written: {error}", path.display());
    // A link is followed, so that it stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().ok_or("that is no file's name")?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new: PathBuf = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.sync_all()?;
        if let Ok(known) = fs::metadata(&path) {
            // The broker may run as somebody else than whoever writes here; only root can see to that.
            let _ = chown(&new, Some(known.uid()), Some(known.gid()));
        }
        fs::rename(&new, &path)
    })();
    written.map_err(|error| {
        // Nothing half written stays behind.
        let _ = fs::remove_file(&new);
        fail(error)
    })
}

/// The default of `-I`.
pub fn iterations_default() -> NonZeroU32 {
    NonZeroU32::new(super::password::ITERATIONS_DEFAULT).unwrap_or(NonZeroU32::MIN)
}

/// The default of `-H`.
pub const HASH_DEFAULT: HashKind = HashKind::Sha512Pbkdf2;
