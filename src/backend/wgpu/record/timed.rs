//! What each command takes: by the device's own clock, or by the caller's.

use super::{Gpu, Played, Result, copy, submit};
use crate::backend::wgpu::Buffer;

/// Commands of one submit: far below what a set of queries may have, and what a watchdog allows.
const AT_ONCE: usize = 64;

/// Seconds of each command, by timestamps around it in one stream of work; none where the device
/// was opened without timestamps, or they stand still (those of some drivers do). A copy takes what
/// lies between its neighbours.
pub(super) fn by_timestamps(gpu: &Gpu, commands: &[Played]) -> Result<Option<Vec<f64>>> {
    if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
        return Ok(None);
    }
    let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
        label: None,
        ty: wgpu::QueryType::Timestamp,
        count: 2 * AT_ONCE as u32,
    });
    let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("timestamps"),
        size: 16 * AT_ONCE as u64,
        usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let resolved = Buffer::counted(resolved, &gpu.memory);
    let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
    let mut seconds = Vec::with_capacity(commands.len());
    for commands in commands.chunks(AT_ONCE) {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut written = 0;
        for command in commands {
            let dispatch = match command {
                Played::Dispatch(dispatch) => dispatch,
                Played::Copy { from, to } => {
                    copy(&mut encoder, from, to);
                    continue;
                }
            };
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: Some(written),
                    end_of_pass_write_index: Some(written + 1),
                }),
            });
            dispatch.add_to(&mut pass);
            written += 2;
        }
        if written > 0 {
            encoder.resolve_query_set(&queries, 0..written, &resolved.raw, 0);
        }
        gpu.queue.submit([encoder.finish()]);
        let bytes = gpu.read(&resolved, 0, 8 * u64::from(written))?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        seconds.extend(shared_out(commands.iter().map(Played::is_dispatch), &ticks, period));
    }
    let stands_still = seconds.iter().all(|&seconds| seconds == 0.0);
    Ok((!stands_still).then_some(seconds))
}

/// Seconds of each of some commands, from where each dispatch among them begins and ends.
fn shared_out(dispatches: impl Iterator<Item = bool>, ticks: &[u64], period: f64) -> Vec<f64> {
    let mut pairs = ticks.chunks_exact(2).peekable();
    let mut before = None;
    let took = |from: u64, to: u64| to.saturating_sub(from) as f64 * period;
    dispatches
        .map(|is_dispatch| match (is_dispatch, before) {
            (true, _) => pairs.next().map_or(0.0, |pair| {
                before = Some(pair[1]);
                took(pair[0], pair[1])
            }),
            (false, Some(end)) => {
                let next = pairs.peek().map_or(end, |pair| pair[0]);
                // Of several copies in a row the first one takes all.
                before = Some(next);
                took(end, next)
            }
            (false, None) => 0.0,
        })
        .collect()
}

/// Seconds of each command, submitted alone and waited for.
pub(super) fn by_clock(
    gpu: &Gpu,
    commands: &[Played],
    clock: &dyn Fn() -> f64,
) -> Result<Vec<f64>> {
    let mut seconds = Vec::with_capacity(commands.len());
    for command in commands {
        let start = clock();
        submit(gpu, std::slice::from_ref(command));
        gpu.wait()?;
        seconds.push(clock() - start);
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_take_what_lies_between_their_neighbours() {
        let of =
            |commands: &[bool], ticks: &[u64]| shared_out(commands.iter().copied(), ticks, 0.5);
        assert_eq!(of(&[true, true], &[10, 14, 20, 21]), [2.0, 0.5]);
        assert_eq!(of(&[true, false, false, true], &[10, 14, 20, 22]), [2.0, 3.0, 0.0, 1.0]);
        assert_eq!(of(&[false, true, false], &[10, 14]), [0.0, 2.0, 0.0]);
        assert_eq!(of(&[false], &[]), [0.0]);
        // Clocks that go back.
        assert_eq!(of(&[true], &[14, 10]), [0.0]);
    }
}
