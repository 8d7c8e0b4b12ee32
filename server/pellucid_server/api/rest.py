from fastapi import FastAPI


def build_app(service, settings):
    return FastAPI()
