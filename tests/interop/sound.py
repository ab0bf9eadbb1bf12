"""Sounds that can be told apart, and how much of one is in another."""

import wave

import numpy as np

RATE = 8000
# Long enough to be unmistakable, short enough to survive a jitter buffer's slips in between.
WINDOW = RATE // 4


def voice(seed, seconds=4):
    """Noise of the telephone's band, different for each seed, as 16-bit samples."""
    count = seconds * RATE
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    spectrum[(hertz < 350) | (hertz > 3000)] = 0
    noise = np.fft.irfft(spectrum, count)
    # Syllables: four a second, never silent.
    noise *= 0.65 + 0.35 * np.sin(2 * np.pi * 4 * np.arange(count) / RATE)
    return (noise / np.abs(noise).max() * 12000).astype("<i2")


def save(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def load(path):
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2), path
        assert file.getframerate() == RATE, f"{path}: {file.getframerate()} Hz"
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def likeness(sent, heard):
    """How alike what was heard is to a sound that was sent in a loop: 1 is the same, 0 is another.

    The best normalised correlation of each quarter second that was heard with any part of what was
    sent; of all of them the median, because a jitter buffer may slip inside one.
    """
    twice = np.concatenate([sent, sent]).astype(float)
    heard = np.asarray(heard, dtype=float)
    energy = np.concatenate([[0], np.cumsum(twice**2)])
    energy = energy[WINDOW:] - energy[:-WINDOW]
    found = []
    for start in range(0, len(heard) - WINDOW + 1, WINDOW):
        part = heard[start : start + WINDOW]
        loudness = part @ part
        if loudness == 0:
            found.append(0.0)
            continue
        size = len(twice) + WINDOW
        product = np.fft.irfft(np.fft.rfft(twice, size) * np.conj(np.fft.rfft(part, size)), size)
        product = product[: len(twice) - WINDOW + 1]
        found.append(float(np.max(np.abs(product) / np.sqrt(energy * loudness + 1e-9))))
    return float(np.median(found)) if found else 0.0


def loudness(samples):
    """The root mean square: 0 is silence."""
    samples = np.asarray(samples, dtype=float)
    return float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0


def pitch(samples):
    """The strongest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(np.asarray(samples, dtype=float)))
    return float(np.fft.rfftfreq(len(samples), 1 / RATE)[np.argmax(spectrum)])
