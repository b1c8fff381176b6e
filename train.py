"""Train: `python train.py method=smart flood=fixed flood.b=0.1 model=tiny data=reviews`."""

from lit_adv.cli.train import main

if __name__ == "__main__":
    main()
