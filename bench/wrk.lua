-- What wrk counted, as one line of JSON (its own text rounds the latencies).
done = function(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '\n{"requests": %d, "seconds": %f, "median_us": %f, "failed": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), failed
    ))
end
