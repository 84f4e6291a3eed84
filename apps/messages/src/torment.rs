//! Kills the programs of an example at random, again and again, and compares what each says at the
//! end with what the others say.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One program of an example.
struct Part {
    program: &'static str,
    number: u32,
    listen: String,
    server: Option<String>,
    netns: Option<String>,
    is_server: bool,
}

struct Scene {
    parts: Vec<Part>,
    dir: PathBuf,
    rio: String,
    trace: bool,
}

/// How the programs of an example reach each other.
enum Ways {
    Loopback,
    /// By IPv6; one lock client by IPv4, so the lock server listens for both.
    Six,
    /// From one network namespace to the other, which have 10.77.0.1 and 10.77.0.2.
    Spaces([String; 2]),
}

/// `torment EXAMPLE DIR KILLS RIO [--trace] [--ipv6 | --netns A,B]`: of two namespaces, servers are
/// in the one, clients in the other.
pub fn torment(words: &[String]) -> Result<String, String> {
    let [example, dir, kills, rio, rest @ ..] = words else {
        return Err("torment: say EXAMPLE DIR KILLS RIO".into());
    };
    let kills: u64 = kills
        .parse()
        .map_err(|_| format!("KILLS: {kills}: not a number"))?;
    let place = |flag: &str| rest.iter().position(|word| word == flag);
    let ways = match (place("--netns"), place("--ipv6")) {
        (Some(at), _) => {
            let names = rest.get(at + 1).and_then(|names| names.split_once(','));
            let (a, b) = names.ok_or("--netns: say A,B")?;
            Ways::Spaces([a.to_owned(), b.to_owned()])
        }
        (None, Some(_)) => Ways::Six,
        (None, None) => Ways::Loopback,
    };
    let scene = Scene {
        parts: parts(example, &ways)?,
        dir: dir.into(),
        rio: rio.clone(),
        trace: rest.iter().any(|word| word == "--trace"),
    };
    std::fs::create_dir_all(&scene.dir).map_err(|error| format!("{dir}: {error}"))?;
    let begun = Instant::now();
    let mut random = Random(u64::from(std::process::id()) << 20 | 1);
    let early = scene.kill(kills, &mut random)?;
    let ends = scene.drain()?;
    let requests = scene.compare(&ends)?;
    Ok(format!(
        "{example} on {rio}: {kills} kills ({early} before it had begun), {requests} requests, \
         0 lost, 0 repeated, {:.0} s",
        begun.elapsed().as_secs_f64()
    ))
}

fn parts(example: &str, ways: &Ways) -> Result<Vec<Part>, String> {
    // Ports of their own for each run, so that several can go beside each other.
    let base = 20_000 + (std::process::id() % 4000) * 10;
    let address = |side: usize, port: u32| match ways {
        Ways::Loopback => format!("127.0.0.1:{}", base + port),
        Ways::Six => format!("[::1]:{}", base + port),
        Ways::Spaces(_) => format!("10.77.0.{}:{}", side + 1, base + port),
    };
    let part = |program, number: u32, side: usize, server: Option<u32>, is_server| Part {
        program,
        number,
        listen: address(side, number),
        server: server.map(|server| address(1 - side, server)),
        netns: match ways {
            Ways::Spaces(names) => Some(names[side].clone()),
            _ => None,
        },
        is_server,
    };
    let mut parts = match example {
        "locks" => vec![
            part("locks-server", 9, 0, None, true),
            part("locks-client", 1, 1, Some(9), false),
            part("locks-client", 2, 1, Some(9), false),
            part("locks-client", 3, 1, Some(9), false),
        ],
        "bank" => vec![
            part("bank", 1, 0, Some(2), true),
            part("bank", 2, 1, Some(1), true),
        ],
        "jobs" => vec![
            part("jobs-queue", 9, 0, None, true),
            part("jobs-worker", 1, 1, Some(9), false),
            part("jobs-worker", 2, 1, Some(9), false),
            part("jobs-worker", 3, 1, Some(9), false),
        ],
        _ => {
            return Err(format!(
                "{example}: no such example: say locks, bank or jobs"
            ));
        }
    };
    if let (Ways::Six, [server, .., client]) = (ways, &mut parts[..])
        && example == "locks"
    {
        server.listen = format!("[::]:{}", base + server.number);
        client.listen = format!("127.0.0.1:{}", base + client.number);
        client.server = Some(format!("127.0.0.1:{}", base + server.number));
    }
    Ok(parts)
}

impl Scene {
    fn image(&self, part: &Part) -> PathBuf {
        self.dir.join(format!("{}-{}", part.program, part.number))
    }

    fn start(&self, part: &Part, more: &[&str]) -> Result<Child, String> {
        let itself = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = match &part.netns {
            None => Command::new(&itself),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(&itself);
                command
            }
        };
        command.args([part.program, &part.number.to_string()]);
        command
            .arg(self.image(part))
            .arg(&self.rio)
            .arg(&part.listen)
            .args(&part.server);
        if self.trace {
            command
                .arg("--trace")
                .arg(trace_of(&self.dir, part.program, part.number));
        }
        command
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if more.is_empty() {
            command.stdout(Stdio::null());
        }
        command
            .spawn()
            .map_err(|error| format!("start {}: {error}", part.program))
    }

    /// Kills one at a time, at a random moment, and starts it again at once. `ip netns exec` becomes
    /// the program, so the child is what is to be killed.
    fn kill(&self, kills: u64, random: &mut Random) -> Result<u64, String> {
        let start = |part| self.start(part, &[]).map(|child| (child, Instant::now()));
        let mut running: Vec<_> = self.parts.iter().map(start).collect::<Result<_, _>>()?;
        let mut early = 0;
        // On a disk a start alone takes some syncs: with no more time nothing would be done at all.
        let slower = if self.rio == "disk" { 10 } else { 1 };
        for count in 0..kills {
            // Mostly soon, so that starts and recoveries die as well; now and then there is peace.
            let pause = if random.below(16) == 0 { 60_000 } else { 6000 };
            sleep(Duration::from_micros(slower * random.below(pause)));
            let index = random.below(self.parts.len() as u64) as usize;
            let (child, since) = &mut running[index];
            early += u64::from(since.elapsed() < Duration::from_millis(3));
            child.kill().map_err(|error| format!("kill: {error}"))?;
            let status = child.wait().map_err(|error| format!("wait: {error}"))?;
            if status.code().is_some() {
                return Err(complaint(child, &self.parts[index], count));
            }
            running[index] = start(&self.parts[index])?;
        }
        for (child, _) in &mut running {
            child.kill().map_err(|error| format!("kill: {error}"))?;
            child.wait().map_err(|error| format!("wait: {error}"))?;
        }
        Ok(early)
    }

    /// Lets all finish what they have begun; what each says at the end.
    fn drain(&self) -> Result<Vec<String>, String> {
        // Servers end when nobody asks any more; they must not end before the clients do.
        let server = |part: &&Part| part.is_server;
        let mut servers = Vec::new();
        for part in self.parts.iter().filter(server) {
            servers.push(self.start(
                part,
                if part.server.is_some() {
                    &["--drain"]
                } else {
                    &[]
                },
            )?);
        }
        let mut clients = Vec::new();
        for part in self.parts.iter().filter(|part| !part.is_server) {
            clients.push(self.start(part, &["--drain"])?);
        }
        let mut ends = Vec::new();
        for (child, part) in clients
            .into_iter()
            .zip(self.parts.iter().filter(|p| !p.is_server))
        {
            ends.push(end_of(child, part)?);
        }
        for (mut child, part) in servers.into_iter().zip(self.parts.iter().filter(server)) {
            if part.server.is_none() {
                child.kill().map_err(|error| format!("kill: {error}"))?;
                let status = child.wait().map_err(|error| format!("wait: {error}"))?;
                if status.code().is_some() {
                    return Err(complaint(&mut child, part, 0));
                }
                child = self.start(part, &["--drain"])?;
            }
            ends.push(end_of(child, part)?);
        }
        Ok(ends)
    }

    /// What clients say they sent is what servers say they executed.
    fn compare(&self, ends: &[String]) -> Result<u64, String> {
        let sent: Vec<u64> = ends.iter().filter_map(|end| field(end, "number")).collect();
        let executed: Vec<Vec<u64>> = ends
            .iter()
            .filter_map(|end| end.split("executed ").nth(1))
            .map(|list| {
                let list = list.split(' ').next().unwrap_or("");
                list.split(',')
                    .filter_map(|word| word.parse().ok())
                    .collect()
            })
            .collect();
        let balances: Vec<u64> = ends
            .iter()
            .filter_map(|end| field(end, "balance"))
            .collect();
        let sum = |list: &Vec<u64>| list.iter().sum::<u64>();
        let (sent_sum, executed_sum) = (sum(&sent), executed.iter().map(sum).sum::<u64>());
        let money = balances.is_empty() || sum(&balances) == 2_000_000;
        match sent_sum == executed_sum && sent_sum > 0 && money {
            true => Ok(sent_sum),
            false => Err(format!(
                "EXACTLY ONCE IS BROKEN: the ends do not agree: {ends:#?}"
            )),
        }
    }
}

pub fn trace_of(dir: &Path, program: &str, number: u32) -> PathBuf {
    dir.join(format!("trace-{program}-{number}"))
}

fn field(end: &str, name: &str) -> Option<u64> {
    let mut words = end.split(' ').skip_while(|word| *word != name);
    words.nth(1)?.parse().ok()
}

fn end_of(child: Child, part: &Part) -> Result<String, String> {
    let output = child
        .wait_with_output()
        .map_err(|error| format!("wait: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => Ok(said.trim_end().lines().last().unwrap_or("").to_owned()),
        false => Err(format!(
            "{} {} at the end: {}",
            part.program,
            part.number,
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn complaint(child: &mut Child, part: &Part, kills: u64) -> String {
    use std::io::Read;
    let mut text = String::new();
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.read_to_string(&mut text);
    }
    format!(
        "{} {} stopped after {kills} kills: {text}",
        part.program, part.number
    )
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
