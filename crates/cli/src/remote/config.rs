//! How registries are spoken to: options, environment and files, read here and passed on.
//!
//! ```text
//! credentials  --authfile, $REGISTRY_AUTH_FILE, or in this order
//!              $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json,
//!              $DOCKER_CONFIG/config.json (~/.docker)
//! registries   /etc/docker/daemon.json; $CONTAINERS_REGISTRIES_CONF, or registries.conf in
//!              ~/.config/containers or else in /etc/containers, and registries.conf.d/*.conf:
//!              where the former has no registries.conf the latter's, and then the former's;
//!              /etc/stratafs/registries.conf, ~/.config/stratafs/registries.conf
//! proxies      HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, in capitals or not
//! ```
//!
//! Invariant: this is the only place of this module where the environment is read; what is said
//! later (own configuration) replaces what is said earlier about the same registry.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueHint};
use strata_registry::{
    Credentials, Proxies, Registries, RegistryOptions, RegistrySettings, Retry, Timeouts,
};

use crate::context::Context;
use crate::home::home;

/// The options of every command that speaks to a registry.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryArgs {
    /// Check certificates, and use plain http only with this machine and with registries that
    /// are listed as insecure
    #[arg(long, value_name = "true|false", default_value_t = true, num_args = 0..=1,
          action = clap::ArgAction::Set, default_missing_value = "true", require_equals = true,
          hide_possible_values = true)]
    tls_verify: bool,
    /// The file with the credentials [default: those of docker and podman]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    authfile: Option<PathBuf>,
    /// Seconds for a connection, TLS included
    #[arg(long, value_name = "SECONDS", default_value_t = 15,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    connect_timeout: u64,
    /// Seconds for the first byte of an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    answer_timeout: u64,
    /// Seconds between any two bytes of a transfer; less than 8 KiB in twice that time is too slow
    /// as well
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    stall_timeout: u64,
    /// Further tries of what may pass; at most two where no answer comes at all
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(0..=1000))]
    retries: u32,
}

impl RegistryArgs {
    /// What counts without any option.
    pub(crate) fn as_configured() -> Self {
        Self {
            tls_verify: true,
            authfile: None,
            connect_timeout: 15,
            answer_timeout: 30,
            stall_timeout: 30,
            retries: 4,
        }
    }

    /// All registries, as the configuration has them.
    pub(crate) fn registries(&self, context: &Context) -> Result<Registries> {
        Ok(Registries::new(self.options(context)?))
    }

    /// The same for a run that asks much and long: at most `rate` requests a second to one host,
    /// and pauses as long as a host asks for, up to a quarter of an hour.
    pub(crate) fn patient(
        &self,
        context: &Context,
        rate: Option<NonZeroU32>,
    ) -> Result<Registries> {
        let mut options = self.options(context)?;
        options.rate = rate;
        options.retry.longest = Duration::from_secs(15 * 60);
        Ok(Registries::new(options))
    }

    fn options(&self, context: &Context) -> Result<RegistryOptions> {
        Ok(RegistryOptions {
            settings: settings()?,
            credentials: self.credentials()?,
            proxies: proxies(),
            roots: roots(),
            no_tls_verify: !self.tls_verify,
            timeouts: Timeouts {
                connect: Duration::from_secs(self.connect_timeout),
                answer: Duration::from_secs(self.answer_timeout),
                stall: Duration::from_secs(self.stall_timeout),
            },
            retry: Retry { tries: self.retries.saturating_add(1), ..Retry::default() },
            // Where there is no store there is nothing to remember in.
            state: Some(context.root.clone()).filter(|root| root.is_dir()),
            rate: None,
        })
    }

    fn credentials(&self) -> Result<Credentials> {
        if self.chosen_file().is_some() {
            return Credentials::load(&self.auth_files()).context("cannot read the credentials");
        }
        // As docker: a file that nobody asked for stops nobody.
        let readable = |file: &PathBuf| match Credentials::load(std::slice::from_ref(file)) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!("{error}; it is gone on without");
                false
            }
        };
        let files: Vec<PathBuf> = self.auth_files().into_iter().filter(readable).collect();
        Credentials::load(&files).context("cannot read the credentials")
    }

    /// The files that are asked, in order.
    fn auth_files(&self) -> Vec<PathBuf> {
        if let Some(file) = self.chosen_file() {
            return vec![file];
        }
        let mut files = Vec::new();
        let runtime = variable("XDG_RUNTIME_DIR").map_or_else(
            || PathBuf::from(format!("/run/containers/{}", rustix::process::geteuid().as_raw())),
            |dir| PathBuf::from(dir).join("containers"),
        );
        files.push(runtime.join("auth.json"));
        files.extend(config_dir().map(|dir| dir.join("containers/auth.json")));
        files.extend(docker_config());
        files
    }

    fn chosen_file(&self) -> Option<PathBuf> {
        self.authfile.clone().or_else(|| variable("REGISTRY_AUTH_FILE").map(PathBuf::from))
    }

    /// The file that a login to a registry is kept in: the one that knows the registry already,
    /// because that is asked first, else docker's.
    pub(crate) fn login_file(&self, host: &str) -> Result<PathBuf> {
        if let Some(file) = self.chosen_file() {
            return Ok(file);
        }
        for file in self.auth_files() {
            let known = Credentials::load(std::slice::from_ref(&file))
                .and_then(|one| Ok(one.find(host, "")?.is_some()));
            // What cannot be read is warned of where credentials are looked for, and knows nothing.
            if known.unwrap_or(false) {
                return Ok(file);
            }
        }
        docker_config().context(
            "neither DOCKER_CONFIG nor HOME is set, and /etc/passwd names no home directory; say \
             --authfile FILE",
        )
    }

    /// Every file that may hold a login, for forgetting it.
    pub(crate) fn logout_files(&self) -> Vec<PathBuf> {
        self.auth_files()
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn config_dir() -> Option<PathBuf> {
    let named = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    named.or_else(|| home().map(|home| home.join(".config")))
}

fn docker_config() -> Option<PathBuf> {
    let dir = variable("DOCKER_CONFIG").map(PathBuf::from);
    dir.or_else(|| home().map(|home| home.join(".docker"))).map(|dir| dir.join("config.json"))
}

fn settings() -> Result<RegistrySettings> {
    let mut settings = RegistrySettings::default();
    read_settings(&mut settings).context("cannot read the configuration of registries")?;
    Ok(settings)
}

fn read_settings(settings: &mut RegistrySettings) -> Result<()> {
    let user = config_dir();
    settings.add_daemon_json(Path::new("/etc/docker/daemon.json"));
    if let Some(user) = &user {
        settings.add_daemon_json(&user.join("docker/daemon.json"));
    }
    for fault in &settings.faults {
        tracing::warn!("{fault}");
    }
    match variable("CONTAINERS_REGISTRIES_CONF") {
        Some(file) => {
            let file = Path::new(&file);
            // What it may block would be asked.
            if !file.exists() {
                let shown = file.display();
                bail!("CONTAINERS_REGISTRIES_CONF names {shown}, which is not there");
            }
            settings.add_registries_conf(file)?;
        }
        None => {
            let user = user.as_ref().map(|user| user.join("containers"));
            add_containers(settings, Path::new("/etc/containers"), user.as_deref())?;
        }
    }
    settings.add_registries_conf(Path::new("/etc/stratafs/registries.conf"))?;
    if let Some(user) = &user {
        settings.add_registries_conf(&user.join("stratafs/registries.conf"))?;
    }
    Ok(())
}

/// Adds what podman and skopeo read (containers-registries.conf.d(5)): a user's `registries.conf`
/// stands for all of the system's files; without one the user's drop-ins come after the system's.
fn add_containers(
    settings: &mut RegistrySettings,
    system: &Path,
    user: Option<&Path>,
) -> Result<()> {
    let own = user.filter(|dir| dir.join("registries.conf").exists());
    settings.add_registries_conf(&own.unwrap_or(system).join("registries.conf"))?;
    let before = if own.is_some() { None } else { Some(system) };
    for dir in before.into_iter().chain(user) {
        for file in drop_ins(&dir.join("registries.conf.d"))? {
            settings.add_registries_conf(&file)?;
        }
    }
    Ok(())
}

/// The `*.conf` files of a directory, sorted by name.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", dir.display())),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.extension().is_some_and(|end| end == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The proxies of the environment.
pub(super) fn proxies() -> Proxies {
    let read = |name: &str| {
        let text = variable(name).or_else(|| variable(&name.to_ascii_lowercase()))?;
        text.into_string().ok()
    };
    let all = read("ALL_PROXY");
    Proxies {
        http: read("HTTP_PROXY").or_else(|| all.clone()),
        https: read("HTTPS_PROXY").or(all),
        none_for: read("NO_PROXY").unwrap_or_default(),
    }
}

/// The system's certificates.
fn roots() -> Vec<Vec<u8>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!("a root certificate cannot be read: {error}");
    }
    found.certs.into_iter().map(|cert| cert.to_vec()).collect()
}

/// Where a program is that the shell would find.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_of_the_user_come_after_those_of_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let (system, user) = (dir.path().join("system"), dir.path().join("user"));
        let write = |dir: &Path, name: &str, location: &str| {
            let file = dir.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            let text = format!("[[registry]]\nprefix = 'a.io'\nlocation = '{location}'\n");
            std::fs::write(file, text).unwrap();
        };
        let location = || {
            let mut settings = RegistrySettings::default();
            add_containers(&mut settings, &system, Some(&user)).unwrap();
            let all = settings.mirrors();
            assert_eq!(all.len(), 1);
            (all[0].location.clone(), settings.sources.len())
        };
        write(&system, "registries.conf", "system.io");
        assert_eq!(location(), ("system.io".to_owned(), 1));
        write(&user, "registries.conf.d/1.conf", "user.io");
        assert_eq!(location(), ("user.io".to_owned(), 2));
        write(&system, "registries.conf.d/2.conf", "drop.io");
        assert_eq!(location(), ("user.io".to_owned(), 3));
        // Nothing of the system's is read beside the user's own file.
        write(&user, "registries.conf", "own.io");
        assert_eq!(location(), ("user.io".to_owned(), 2));
    }
}
