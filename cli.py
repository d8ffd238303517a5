from metahp_cli.main import main

if __name__ == "__main__":  # processes that are spawned import this file as well
    main()
