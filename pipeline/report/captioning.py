"""How the captions came about: what was asked, what it took, what the cache served, what was repaired."""

from schemas.summary import RunSummary


def captioning(run: RunSummary) -> list[tuple[str, str]]:
    """(what, figure in words) of the caption stage; empty where nothing is captioned."""
    metrics = run.metrics_of("caption")
    if not metrics:
        return []
    asked, taken = metrics.get("answers_asked", 0.0), metrics.get("answers_taken_over", 0.0)
    judged = asked + taken - metrics.get("repairs_asked", 0.0)
    facts = [("engine asked", f"{asked:,.0f} times; {taken:,.0f} answers were there from before")]
    if judged > 0:
        tokens = (metrics.get(name, 0.0) / judged for name in ("prompt_tokens", "completion_tokens"))
        facts.append(("tokens a caption", "{:,.0f} of prompt, {:,.0f} of answer".format(*tokens)))
    if asked and (seconds := metrics.get("engine_seconds")):
        facts.append(("answers a second", f"{asked / seconds:.2g}, one worker"))
    if shared := metrics.get("prefix_tokens"):
        served = metrics.get("prefix_cached_tokens", 0.0) / shared
        facts.append(("shared beginning of the prompts", f"{served:.1%} served by the prefix cache"))
    if repairs := metrics.get("repairs_asked"):
        facts.append(("repairs", f"{repairs:,.0f} asked for, {metrics.get('repaired', 0.0):,.0f} better"))
    if cut := metrics.get("prompts_cut"):
        facts.append(("prompts cut to fit", f"{cut:,.0f}"))
    if restarts := metrics.get("engine_restarts"):
        facts.append(("restarts of the engine", f"{restarts:,.0f}"))
    return facts
