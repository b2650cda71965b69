"""Rendered scores of raw sum, equal loudness, rule mix and DQN on session folders, and what was delivered.

    python benchmarks/quality.py audio_samples/*/ [more folders ...] [--picture spectrum.png] [--json quality.json]

Every mix is rendered over the session's excerpt and judged loudness-matched by the same score; higher is better, 0 is
best. The last columns are of the winner's file, as written. The score is what the DQN was trained for: this table shows
that it does its job on songs that it has not seen (benchmarks/split.json), not that people prefer the result.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from mixrl.agent.policy import default_policy, load_policy
from mixrl.excerpt import excerpt
from mixrl.measures import CENTRES_HZ
from mixrl.mixer import Mixer
from mixrl.people import informed
from mixrl.rendered import Rendered
from mixrl.rules import equal_loudness
from mixrl.scene import Scene
from mixrl.score import reference, score
from mixrl.session import load_session
from mixrl.sound_roles import guessed

COLUMNS = ("no change", "equal loudness", "rule mix", "dqn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--policy", type=Path, help="another policy than the one that ships")
    parser.add_argument("--picture", type=Path, help="draw the spectra before and after (needs matplotlib)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    policy = load_policy(arguments.policy) if arguments.policy else default_policy()
    rows = []
    curves = []
    scores_head = " ".join(f"{c:>14s}" for c in COLUMNS)
    print(f"{'session':34s} stems {scores_head}  moves winner      LUFS   dBTP limiting")
    for folder in arguments.folders:
        session = load_session(folder)
        heard = excerpt(session)
        mix = Mixer(policy=policy).mix(session)
        scene = informed(guessed(Scene.of(heard)))
        rendered = Rendered(heard, scene)
        scores = {c.name: c.score for c in mix.candidates}
        scores["equal loudness"] = float(score(rendered.measures(equal_loudness(scene)), scene.facts))
        with tempfile.TemporaryDirectory() as temporary:
            delivery = mix.write(Path(temporary) / "mix.wav")
        measured = delivery.measurement
        print(
            f"{folder.name:34.34s} {len(session.stems):5d} "
            + " ".join(f"{scores[c]:14.3f}" for c in COLUMNS)
            + f"  {len(mix.moves):5d} {mix.winner:9s} {measured.integrated_lufs or float('nan'):6.2f} "
            f"{measured.true_peak_dbtp or float('nan'):6.2f} {delivery.limiting_db:8.2f}"
            + ("" if delivery.target_reached else "  target not reached"),
            flush=True,
        )
        rows.append(
            {
                "session": folder.name,
                "stems": len(session.stems),
                "scores": scores,
                "winner": mix.winner,
                "moves": len(mix.moves),
                "integrated_lufs": measured.integrated_lufs,
                "true_peak_dbtp": measured.true_peak_dbtp,
                "limiting_db": delivery.limiting_db,
                "target_reached": delivery.target_reached,
            }
        )
        if arguments.picture:
            before = rendered.measures(mix.candidate("no change").settings)
            after = rendered.measures(mix.settings)
            curves.append((folder.name, before, after, scene.facts.counted))
    better = sum(row["scores"]["dqn"] > max(row["scores"][c] for c in COLUMNS[:3]) for row in rows)  # type: ignore[index]
    print(f"the DQN is best on {better} of {len(rows)} sessions")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if arguments.picture:
        _draw(curves, arguments.picture)


def _draw(curves: list, path: Path) -> None:  # type: ignore[type-arg]
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ref = reference()
    figure, axes = pyplot.subplots(1, len(curves), figsize=(6.5 * len(curves), 4.2), squeeze=False, sharey=True)
    for axis, (name, before, after, counted) in zip(axes[0], curves, strict=True):
        low, high = ref.level_db - ref.deviation_db, ref.level_db + ref.deviation_db
        axis.fill_between(CENTRES_HZ, low, high, color="0.85", label="finished songs, ± 1 sd")
        for measures, label, colour in ((before, "stems as they are", "tab:red"), (after, "mix", "tab:blue")):
            off = (measures.spectrum_db - ref.level_db)[counted].mean()
            axis.semilogx(CENTRES_HZ[counted], measures.spectrum_db[counted] - off, color=colour, label=label)
        axis.set(title=name, xlabel="Hz", ylim=(-55, 0), xlim=(25, 16000))
        axis.grid(alpha=0.3, which="both")
    axes[0][0].set_ylabel("third-octave level, dB")
    axes[0][0].legend(loc="lower center")
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
