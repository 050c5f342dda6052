from django.utils import timezone
from django.views.generic import DetailView, ListView

from .models import Post


class Published:
    def get_queryset(self):
        return Post.objects.filter(published__lte=timezone.now())


class PostList(Published, ListView):
    paginate_by = 20
    template_name = "blog/posts.html"


class PostDetail(Published, DetailView):
    template_name = "blog/post.html"
