"""From labelled texts to a released bundle: corpus, base encoder, fine-tuning, calibration, export, release."""
